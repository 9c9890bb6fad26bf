"""Shared weights: each subnet computes what its slice computes, at its own cost, and trains what it uses."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.ir.subnet import Subnet
from compactor.training.statistics import recalibrated
from compactor.training.supernet import Supernet
from tests.models import program
from tests.training.samples import blobs, network
from tests.training.samples import program as exported

TRANSFORMERS = ["bert", "vit", "gpt2", "llama"]


def leading(model: Program, share: float, dropped: tuple[str, ...] = ()) -> Subnet:
    space = space_of(model)
    return space.choose({g.name: range(max(1, round(share * g.size))) for g in space.groups}, dropped)


def inside(model: Program, seed: int) -> tuple[Subnet, Subnet]:
    """A random subnet, and one that keeps every other unit of it and loses a block more."""
    space = space_of(model)
    outer = space.sample(seed, keep=0.75, depth=1.0)
    kept = {g.name: dict(outer.kept).get(g.name, tuple(range(g.size)))[::2] for g in space.groups}
    return outer, space.choose(kept, [b.name for b in space.blocks[-1:]])


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("scattered", [False, True])
def test_a_subnet_computes_what_its_slice_computes(name: str, scattered: bool) -> None:
    model = program(name)
    outer, inner = inside(model, 0) if scattered else (leading(model, 0.75), leading(model, 0.4))
    net, inputs = Supernet(model, outer), model.example_inputs(3)
    for subnet in (outer, inner):
        found = net(subnet, *inputs)
        want = slice_program(model, subnet)(*inputs)
        torch.testing.assert_close(next(iter(found.values())), want, rtol=1e-4, atol=1e-5)
        assert net.student(subnet).fingerprint == slice_program(model, subnet).fingerprint


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_gradients_reach_the_shared_weights_that_a_subnet_uses_and_no_others(name: str) -> None:
    model = program(name)
    small = leading(model, 0.5)
    net = Supernet(model, space_of(model).full())
    found = net(small, *model.example_inputs(2))
    next(iter(found.values())).square().sum().backward()
    kept, grads = space_of(model).kept_weights(small), dict(net.shared.named_parameters())
    reached = 0
    for tensor, dims in kept.items():
        grad = getattr(grads.get(tensor), "grad", None)
        for dim, alive in enumerate(dims if grad is not None else ()):
            if alive is not None and not alive.all():
                assert not grad.index_select(dim, torch.from_numpy((~alive).nonzero()[0])).any()
                reached += bool(grad.any())
    assert reached > 5


@pytest.mark.parametrize("name", ["bert", "resnet_a"])
def test_a_small_subnet_costs_what_a_small_subnet_costs(name: str) -> None:
    model = program(name)
    small, inputs = leading(model, 0.25), model.example_inputs(2)
    net = Supernet(model, space_of(model).full())

    @torch.no_grad()
    def flops(run) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    alone = flops(lambda: slice_program(model, small)(*inputs))
    assert flops(lambda: net(small, *inputs)) == alone < 0.5 * flops(lambda: model(*inputs))


def test_what_is_not_within_the_largest_is_refused() -> None:
    model = program("bert")
    blocks = [b.name for b in space_of(model).blocks]
    net = Supernet(model, leading(model, 0.5, (blocks[0],)))
    for subnet in (leading(model, 0.75, (blocks[0],)), leading(model, 0.25)):
        with pytest.raises(InputError, match="super-network"):
            net(subnet, *model.example_inputs(1))


def test_statistics_of_a_subnet_are_its_own() -> None:
    """With them, evaluation computes what training computes on the same batch."""
    model, images = exported(network(8)), blobs(64, 0).images
    small = leading(model, 0.5)
    net = Supernet(model, space_of(model).full())
    training = net(small, images)
    student = recalibrated(net.student(small), (images,))
    torch.testing.assert_close(student(images), next(iter(training.values())), rtol=0.02, atol=0.01)
    plain = program("bert")
    assert recalibrated(plain, plain.example_inputs(2)) is plain
