"""`canonicalize`: exact, idempotent, reloadable on every architecture; each rewrite on a small case of its own."""

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from compactor.errors import UnsupportedError
from compactor.ir import graphs
from compactor.ir.exported import from_exported
from compactor.ir.program import Program
from compactor.ir.verify import verify
from compactor.passes.canonicalize.canonicalize import Canonicalize, canonical
from compactor.passes.canonicalize.constants import LIMIT
from tests.passes.support import context, error, export, reloaded, targets, traced


def test_outputs_stay_and_a_second_run_changes_nothing(architecture_program: Program) -> None:
    result, _, _ = canonical(architecture_program)
    verify(result)
    for batch in (1, 3):
        assert error(architecture_program, result, batch) <= 1e-5
    again, counts, _ = canonical(result)
    assert again is result and not counts


@pytest.mark.parametrize("name", ["mobilenet_v3", "bert_eager", "gpt2", "packed_view"])
def test_saving_and_loading_keeps_the_fingerprint(name: str, tmp_path: Path) -> None:
    from tests.models import program

    result, _, _ = canonical(program(name))
    loaded = reloaded(result, tmp_path)
    assert loaded.fingerprint == result.fingerprint
    assert canonical(loaded)[0].fingerprint == result.fingerprint


def test_the_pass_reports_what_it_did_and_leaves_its_input_alone(tmp_path: Path) -> None:
    program = traced(lambda x: F.relu(x.clone()).detach() + 1, 2, 4)
    before = program.fingerprint
    result = Canonicalize().run(program, context(program, tmp_path))
    assert result.modified and program.fingerprint == before
    assert result.metrics["rewrites"]["remove_identities"] >= 2
    assert result.metrics["nodes"][0] > result.metrics["nodes"][1]


def test_an_unchanged_program_comes_back_itself(tmp_path: Path) -> None:
    program = traced(F.relu, 2, 4)
    result = Canonicalize().run(program, context(program, tmp_path))
    assert not result.modified and result.program is program


_IDENTITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "clone": lambda x: F.relu(x.clone()),
    "contiguous": lambda x: F.relu(x).contiguous(),
    "detach": lambda x: F.relu(x).detach(),
    "cast": lambda x: F.relu(x).to(torch.float32),
    "device": lambda x: F.relu(x).to("cpu"),
    "view": lambda x: F.relu(x).view(x.shape[0], 3, -1),
    "expand": lambda x: F.relu(x).expand(x.shape[0], 3, 4),
    "slice": lambda x: F.relu(x)[:, 0:3],
    "permute": lambda x: F.relu(x).permute(0, 1, 2),
    "dropout": lambda x: F.dropout(F.relu(x), 0.5, training=False),
    "add 0": lambda x: F.relu(x) + 0,
    "mul 1": lambda x: F.relu(x) * 1.0,
    "pad nothing": lambda x: F.pad(F.relu(x), (0, 0)),
    "flatten one": lambda x: F.relu(x).flatten(1, 1),
}


@pytest.mark.parametrize("name", list(_IDENTITIES))
def test_identities_go(name: str) -> None:
    result, _, _ = canonical(traced(_IDENTITIES[name], 2, 3, 4))
    assert targets(result) == ["relu.default"]


_KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "cast to another type": lambda x: x.to(torch.float64),
    "slice of a part": lambda x: x[:, 1:3],
    "expand": lambda x: x[:, :1].expand(x.shape[0], 3, 4),
    "flip": lambda x: x.flip(1),
    "batch into rows": lambda x: x.reshape(-1, 4),
    "dropout in training": lambda x: F.dropout(x, 0.5, training=True),
    "integer division": lambda x: torch.div(x, 1, rounding_mode="floor"),
}


@pytest.mark.parametrize("name", list(_KEPT))
def test_what_changes_values_or_shapes_stays(name: str) -> None:
    program = traced(_KEPT[name], 2, 3, 4)
    assert targets(canonical(program)[0])[-1] == targets(program)[-1]


def test_an_expand_that_is_whole_for_one_batch_only_stays() -> None:
    program = traced(lambda x: F.relu(x).sum(0, keepdim=True).expand(x.shape[0], 4), 2, 4)
    result, _, _ = canonical(program)
    assert "expand.default" in targets(result)
    for batch in (1, 4):
        assert error(program, result, batch) == 0


def test_batch_norm_stays() -> None:
    program = export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 8, 8))
    assert "batch_norm.default" in targets(canonical(program)[0])


def test_in_place_calls_become_pure() -> None:
    def function(x: Tensor) -> Tensor:
        y = x + 1
        z = F.relu_(y)
        return z.add_(y)

    program = traced(function, 2, 4)
    result, _, _ = canonical(program)
    assert not any(t.split(".")[0].endswith("_") for t in targets(result))
    x = torch.randn(3, 4)
    assert torch.equal(result(x), function(x))


def test_in_place_through_a_view_is_refused() -> None:
    def function(x: Tensor) -> Tensor:
        y = x + 1
        return y.view(-1).mul_(2).sum() + y

    program = traced(function, 2, 4)
    with pytest.raises(UnsupportedError, match="in place"):
        canonical(program)


def test_equal_calls_are_merged_and_random_ones_are_not() -> None:
    merged, counts, _ = canonical(traced(lambda x: torch.sin(x) + torch.sin(x) * x.shape[0], 2, 4))
    assert targets(merged).count("sin.default") == 1 and counts["merge_duplicates"] >= 1
    random, _, _ = canonical(traced(lambda x: torch.rand_like(x) - torch.rand_like(x), 2, 4))
    assert targets(random).count("rand_like.default") == 2


def test_arguments_that_are_equal_but_of_other_types_are_not_merged() -> None:
    result, _, _ = canonical(traced(lambda x: x.long().pow(2).float() + x.long().pow(2.0), 2, 4))
    assert targets(result).count("pow.Tensor_Scalar") == 2


def test_small_constants_are_folded_large_and_dynamic_ones_are_not() -> None:
    small, _, _ = canonical(traced(lambda x: x + torch.arange(4).float() * 2, 2, 4))
    assert targets(small) == ["add.Tensor"]
    large, _, _ = canonical(traced(lambda x: x + torch.arange(LIMIT + 1).float(), 2, LIMIT + 1))
    assert "arange.default" in targets(large)
    dynamic, _, _ = canonical(traced(lambda x: x + torch.arange(x.shape[0])[:, None], 2, 4))
    assert "arange.default" in targets(dynamic)


def test_trainable_weights_are_never_folded() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.weight * 2)

    result, _, _ = canonical(export(Scaled(), (2, 4)))
    assert result.trainable == {"weight"} and "mul.Tensor" in targets(result)


def test_products_with_stored_weights_become_linear() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.rand(4, 6)), nn.Parameter(torch.rand(6))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x.view(-1, 4), self.weight).view(x.shape[0], 3, 6)

    program = export(Dense(), (2, 3, 4))
    result, _, _ = canonical(program)
    assert targets(result) == ["linear.default"]
    assert result.state["weight"].shape == (6, 4) and result.trainable == program.trainable
    assert error(program, result) <= 1e-6


def test_a_shared_weight_is_not_transposed_and_the_reason_is_given() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight + self.weight.sum()

    program = export(Tied(), (2, 4))
    result, _, skipped = canonical(program)
    assert "matmul.default" in targets(result)
    assert any("shared" in reason for reason in skipped)


def test_decomposed_exports_are_spelled_as_usual() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.LayerNorm(5)
    )
    exported = torch.export.export(
        module.eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: Dim("batch", min=1, max=64)},)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own
        program = from_exported(exported.run_decompositions())
    result, _, _ = canonical(program)
    assert {"conv2d.default", "batch_norm.default", "linear.default", "layer_norm.default"} <= set(targets(result))
    assert not {t for t in targets(result) if t.startswith(("native_", "_native_", "addmm", "convolution"))}
    assert error(program, result) <= 1e-5


# -- attention ---------------------------------------------------------------------------------------------------------

_MASK = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), torch.finfo(torch.float32).min)
_FUTURE = torch.ones(5, 5).triu(1).bool()


def _attend(scores: Callable[[Tensor, Tensor], Tensor], rank: int = 4) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        q, k, v = x.unbind(1) if rank == 4 else (x[:, 0, 0], x[:, 1, 0], x[:, 2, 0])
        return scores(q, k).softmax(-1) @ v

    return function


_SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": _attend(lambda q, k: q @ k.transpose(-1, -2)),
    "divided": _attend(lambda q, k: q @ k.transpose(-1, -2) / math.sqrt(8)),
    "scaled query": _attend(lambda q, k: (q * 8**-0.5) @ k.transpose(2, 3)),
    "scaled both": _attend(lambda q, k: (q * 8**-0.25) @ (k.transpose(2, 3) * 8**-0.25)),
    "permuted keys": _attend(lambda q, k: q @ k.permute(0, 1, 3, 2) * 0.3),
    "added mask": _attend(lambda q, k: q @ k.transpose(-1, -2) * 0.3 + _MASK),
    "mask first": _attend(lambda q, k: _MASK + q @ k.transpose(-1, -2)),
    "two masks": _attend(lambda q, k: q @ k.transpose(-1, -2) + _MASK + _MASK[None, None] * 0.5),
    "filled": _attend(lambda q, k: (q @ k.transpose(-1, -2)).masked_fill(_FUTURE, -1e32)),
    "filled infinite": _attend(lambda q, k: (q @ k.transpose(-1, -2)).masked_fill(_FUTURE, float("-inf"))),
    "three dimensions": _attend(lambda q, k: torch.bmm(q, k.transpose(1, 2)) * 0.3, rank=3),
    "dropout": lambda x: F.dropout(_attend(lambda q, k: q @ k.transpose(-1, -2))(x), 0.1, False),
}


@pytest.mark.parametrize("name", list(_SPELLINGS))
def test_spelled_out_attention_is_recognised(name: str) -> None:
    program = traced(_SPELLINGS[name], 2, 3, 2, 5, 8)
    result, _, skipped = canonical(program)
    assert targets(result).count("scaled_dot_product_attention.default") == 1, skipped
    assert "softmax.int" not in targets(result)
    for batch in (1, 3):
        assert error(program, result, batch) <= 1e-5


_NOT_ATTENTION: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "over queries": (lambda x: (x[:, 0] @ x[:, 1].transpose(-1, -2)).softmax(-2) @ x[:, 2], "dimension -2"),
    "scale over mask": (_attend(lambda q, k: (q @ k.transpose(-1, -2) + _MASK) * 0.3), "between"),
    "weak fill": (_attend(lambda q, k: (q @ k.transpose(-1, -2)).masked_fill(_FUTURE, -5.0)), "between"),
    "mask enlarges": (
        _attend(lambda q, k: q[:, :1] @ k[:, :1].transpose(-1, -2) + torch.zeros(2, 5, 5)),
        "leading|enlarges",
    ),
    "weights returned": (
        lambda x: (w := (x[:, 0] @ x[:, 1].transpose(-1, -2)).softmax(-1), w @ x[:, 2]),
        "used elsewhere",
    ),
}


@pytest.mark.parametrize("name", list(_NOT_ATTENTION))
def test_near_misses_stay_with_a_reason(name: str) -> None:
    function, reason = _NOT_ATTENTION[name]
    program = traced(function, 2, 3, 2, 5, 8)
    result, _, skipped = canonical(program)
    assert "scaled_dot_product_attention.default" not in targets(result)
    assert skipped and re.search(reason, skipped[0]), skipped
    assert error(program, result) == 0


def test_a_row_without_keys_is_treated_as_before() -> None:
    lowest = torch.finfo(torch.float32).min
    blind = torch.zeros(5, 5).masked_fill(torch.eye(5).bool() | _FUTURE, lowest)
    program = traced(_attend(lambda q, k: q @ k.transpose(-1, -2) * 0.3 + blind), 2, 3, 2, 5, 8)
    assert error(program, canonical(program)[0]) <= 1e-5


def test_in_place_on_a_view_that_alone_is_read_later() -> None:
    def function(x: Tensor) -> Tensor:
        return (x + 1).flatten(1).mul_(2) - 1

    x = torch.randn(3, 4, 5)
    assert torch.equal(canonical(traced(function, 2, 4, 5))[0](x), function(x))


def test_weight_norm_becomes_a_plain_weight() -> None:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 8, 3, groups=2))
    program = traced(layer, 2, 4, 9)
    result, _, _ = canonical(program)
    assert targets(result) == ["conv1d.default"]
    assert len(result.trainable & set(graphs.used_state(result.graph))) == 2
    x = torch.randn(3, 4, 9)
    assert torch.allclose(result(x), layer(x), atol=1e-6)


def test_a_computed_weight_that_something_else_reads_stays() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.linear(x, self.weight.exp()), self.weight)

    result, _, _ = canonical(traced(Tied(), 2, 4))
    assert "exp.default" in targets(result)


def test_what_fills_masks_fits_bfloat16() -> None:
    least = torch.finfo(torch.float32).min

    def filled(x: Tensor) -> Tensor:
        return torch.softmax(torch.where(x < 0.9, x.masked_fill(x > 0.5, least), least), -1)

    before = traced(filled, 2, 6)
    after, _, _ = canonical(before)
    assert error(before, after) <= 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        found = after.module()(torch.rand(2, 6).bfloat16())[0]
    assert found.isfinite().all()


def test_one_known_index_is_a_slice() -> None:
    def function(x: Tensor) -> Tensor:
        return x[:, [-2]] + x[:, [0, 1, 2]].sum(1, True)

    result, _, _ = canonical(traced(function, 2, 4, 3))
    assert targets(result).count("slice.Tensor") == 1 and targets(result).count("index.Tensor") == 1
    x = torch.randn(3, 4, 3)
    assert torch.equal(result(x), function(x))


def test_an_average_over_a_window_larger_than_the_map() -> None:
    def function(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 9, ceil_mode=True)

    result, _, _ = canonical(traced(function, 2, 4, 3, 3))
    assert targets(result) == ["adaptive_avg_pool2d.default"]
    x = torch.randn(3, 4, 3, 3)
    assert torch.allclose(result(x), function(x), atol=1e-6)
    kept, _, _ = canonical(traced(lambda x: F.avg_pool2d(x, 2), 2, 4, 3, 3))
    assert targets(kept) == ["avg_pool2d.default"]
