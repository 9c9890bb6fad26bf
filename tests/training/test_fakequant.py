"""Fake quantizers round as deployed and have the gradients of LSQ."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compactor.ir.program import Program
from compactor.ir.quantizing import quantized, split
from compactor.ir.quantplan import Edge, Quantizer, QuantPlan
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.training.fakequant import FakeQuantizer, fake_quantized, learned, shared
from tests.backends.models import MODELS, inputs_for
from tests.backends.models import quantized as by_hand
from tests.passes.support import export


def quantizer(scale: Tensor, zero: int = 0, low: int = -127, high: int = 127, axis: int | None = None) -> Quantizer:
    zeros = torch.full_like(scale, zero, dtype=torch.int64)
    return Quantizer("x", axis is not None, (Edge("y", 0, "linear"),), scale, zeros, low, high, axis=axis)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_computes_what_is_deployed(name: str) -> None:
    exact, plan = split(by_hand(folded_program(MODELS[name]())[0], fold=False))
    inputs = inputs_for(exact, 3, seed=2)
    with torch.no_grad():
        found = fake_quantized(exact, plan)(*inputs)
    wanted = quantized(exact, plan)(*inputs)
    for a, b in zip(found, [wanted] if isinstance(wanted, Tensor) else wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.floats(0.01, 2), st.booleans(), st.integers(0, 1000))
def test_gradients_are_those_of_the_paper(bits: int, scale: float, unsigned: bool, seed: int) -> None:
    """LSQ, equations 1 to 3, at the scale itself; ours is its logarithm."""
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    made = FakeQuantizer(quantizer(torch.tensor(scale), low=low, high=high))
    random = torch.Generator().manual_seed(seed)
    x, upstream = torch.randn(3, 5, 4, generator=random), torch.randn(3, 5, 4, generator=random)
    x.requires_grad_()
    made(x).backward(upstream)
    v = x.detach() / scale
    inside = (v.round() >= low) & (v.round() <= high)
    slope = torch.where(inside, v.round() - v, v.round().clamp(low, high))
    assert made.growth.grad is not None and x.grad is not None
    wanted = (slope * upstream).sum() * scale / (20 * high) ** 0.5
    torch.testing.assert_close(made.growth.grad, wanted.reshape(1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(x.grad, upstream * inside)


def test_every_channel_of_a_weight_has_its_own_gradient() -> None:
    scales = torch.tensor([0.1, 0.02, 0.5])
    made = FakeQuantizer(quantizer(scales, low=-3, high=3, axis=0))
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 0.5
    made(weight).sum().backward()
    v = weight / scales[:, None]
    slope = torch.where(v.round().abs() <= 3, v.round() - v, v.round().clamp(-3, 3)).sum(1)
    torch.testing.assert_close(made.growth.grad, slope * scales / (4 * 3) ** 0.5)


def test_bfloat16_is_rounded_in_float32() -> None:
    made = FakeQuantizer(quantizer(torch.tensor(0.013)))
    x = torch.randn(2, 50).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = made(x)
    assert found.dtype == torch.float32 and torch.equal(found, made(x.float()))


def test_trained_scales_go_into_the_plan() -> None:
    exact, plan = split(by_hand(folded_program(MODELS["residual"]())[0], fold=False))
    module = fake_quantized(exact, plan)
    assert set(exact.trainable) <= {name for name, _ in module.named_parameters()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("growth"):
                parameter.fill_(0.5)
    inputs = inputs_for(exact, 3)
    after = learned(plan, module.state_dict())
    assert all(torch.allclose(b.scale, a.scale * torch.e**0.5) for a, b in zip(plan, after, strict=True))
    with torch.no_grad():
        found = module(*inputs)[0]
    torch.testing.assert_close(found, quantized(exact, after)(*inputs), rtol=1e-4, atol=1e-5)
    assert str(learned(plan, {})) == str(plan)


class Joined(nn.Module):
    """Two branches, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3))


def joined() -> tuple[Program, QuantPlan]:
    exact = export(Joined(), (2, 1, 4, 4))
    cat = next(n for n in exact.graph.nodes if "cat" in str(n.target))
    parts = [
        replace(quantizer(torch.tensor(0.02)), source=n.name, edges=(Edge(cat.name, i, "cat"),))
        for i, n in enumerate(cat.args[0])
    ]
    return exact, QuantPlan(tuple(parts))


def test_branches_of_a_concatenation_keep_one_scale() -> None:
    exact, plan = joined()
    assert list(shared(plan)) == ["0", "0"]
    module = fake_quantized(exact, plan)
    growths = [p for name, p in module.named_parameters() if name.endswith("growth")]
    assert len(growths) == 1
    with torch.no_grad():
        growths[0].fill_(1.0)
    first, second = learned(plan, module.state_dict())
    assert float(first.scale) == float(second.scale) > 0.05
    other = plan.replaced({1: replace(plan.quantizers[1], scale=torch.tensor(0.03))})
    assert list(shared(other)) == ["0", "1"]
