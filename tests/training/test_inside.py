"""Attention maps and outputs compared inside of a student that was sliced, folded or smoothed."""

from typing import Any

import pytest
import torch

from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.training.inside import Inside, InsideWeights
from tests.models import program
from tests.passes.distill.support import sliced


def loss(student: Program, teacher: Program, **weights: Any) -> float:
    inside = Inside(student, teacher, InsideWeights(**weights))
    inputs = teacher.example_inputs(3)
    found = inside.student(*inputs)
    assert isinstance(found, tuple) and torch.equal(found[0], first(student(*inputs)))
    return inside.loss(found, inputs).item()


def first(found: Any) -> torch.Tensor:
    return found if isinstance(found, torch.Tensor) else found[0]


@pytest.mark.parametrize("weights", [{"maps": 1.0}, {"outputs": 1.0}, {"maps": 1.0, "outputs": 1.0, "relation": 1.0}])
def test_zero_against_itself_and_grows_with_the_weights(weights: dict[str, float]) -> None:
    teacher = canonical(program("bert"))[0]
    random = torch.Generator().manual_seed(0)
    noisy = {
        n: t + 0.1 * torch.randn(t.shape, generator=random) for n, t in teacher.state.items() if n in teacher.trainable
    }
    student = teacher.with_state(noisy)
    assert loss(teacher, teacher, **weights) == pytest.approx(0, abs=1e-5)
    found = loss(student, teacher, **weights)
    assert found > 1e-4
    assert loss(student, teacher, **{k: 2 * v for k, v in weights.items()}) == pytest.approx(2 * found, rel=1e-4)


def test_a_student_with_fewer_heads_is_compared_too() -> None:
    teacher = canonical(program("bert"))[0]
    student = sliced(teacher, drop=0)
    assert loss(student, teacher, maps=1.0) > 0


def test_without_attention_there_is_nothing_to_compare() -> None:
    teacher = canonical(program("resnet_b"))[0]
    with pytest.raises(UnsupportedError, match="attention"):
        Inside(teacher, teacher, InsideWeights(maps=1.0))
    assert not InsideWeights() and InsideWeights(relation=1.0)
