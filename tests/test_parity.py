"""Parity figures, verdicts and errors."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from compactor.errors import InternalError, ParityError
from compactor.parity import TOLERANCES, check, compare
from tests.backends.models import residual


def logits(seed: int = 0) -> Tensor:
    return torch.randn(64, 10, generator=torch.Generator().manual_seed(seed))


def test_equal_outputs_pass_in_every_precision() -> None:
    for precision in TOLERANCES:
        found = compare([logits()], [logits()], precision)
        assert found.passed
        assert (found.error, found.agreement, found.decided, found.samples) == (0.0, 1.0, 1.0, 64)
        assert found.cosine == pytest.approx(1.0)


def test_relative_error_is_of_norms() -> None:
    found = compare([logits()], [logits() * 1.5], "float32")
    assert found.error == pytest.approx(0.5)
    assert found.cosine == pytest.approx(1.0)
    assert not found.passed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1, 2])
def test_not_a_number_never_passes(value: float, side: int) -> None:
    outputs = [logits(), logits()]
    for broken in outputs if side == 2 else [outputs[side]]:
        broken[3, 2] = value
    for precision in TOLERANCES:
        assert not compare([outputs[0]], [outputs[1]], precision).passed


def test_the_worst_output_decides_and_a_nan_is_the_worst() -> None:
    good, bad = logits(), logits() + float("nan")
    for found in ([good, bad], [bad, good]):
        assert not compare([good, good], found, "int8").passed


def test_a_near_tie_may_flip_but_a_clear_winner_may_not() -> None:
    wanted = torch.tensor([[1.0, 1.0 - 1e-5, 0.0]]).repeat(8, 1)
    flipped = wanted[:, [1, 0, 2]]
    near = compare([wanted], [flipped], "float32")
    assert near.agreement == 0.0
    assert near.passed
    clear = compare([torch.eye(8)], [torch.eye(8).roll(1, 0)], "int8")
    assert (clear.agreement, clear.passed) == (0.0, False)


def test_zero_outputs() -> None:
    zero = torch.zeros(4, 3)
    assert compare([zero], [zero], "float32").passed
    assert not compare([zero], [zero + 1], "int8").passed
    assert not compare([zero + 1], [zero], "int8").passed


def test_outputs_without_classes_have_no_agreement() -> None:
    assert compare([torch.rand(8)], [torch.rand(8)], "int8").agreement == 1.0


def test_shapes_must_be_equal() -> None:
    with pytest.raises(InternalError, match=r"\(64, 9\)"):
        compare([logits()], [logits()[:, :9]], "float32")


def test_require_names_figures_and_remedy() -> None:
    good = compare([logits()], [logits()], "float32")
    assert good.require() is good
    assert good.to_dict()["precision"] == "float32"
    with pytest.raises(ParityError, match=r"student.*5\.00e-01.*\n.*another precision"):
        compare([logits()], [logits() * 1.5], "float32").require("the student")


class Torch:
    """A session that runs the Program itself, wrong by a factor."""

    runtime = "torch"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        output = residual()(*inputs)
        assert isinstance(output, Tensor)
        return (output * self.factor,)


def test_check_runs_both_sides() -> None:
    inputs = residual().example_inputs(8)
    assert check(residual(), Torch(1.0), inputs).passed
    assert not check(residual(), Torch(1.05), inputs).passed
    assert check(residual(), Torch(1.05), inputs, "bfloat16").passed
