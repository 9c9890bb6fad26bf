"""The invariants of the IR, on every architecture and on generated graphs."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from compactor.ir.archive import load
from compactor.ir.masking import mask_program
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace, space_of
from tests.models import program
from tests.strategies import Recipe, recipes


def outputs(model: Program, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    result = model(*inputs)
    return [result] if isinstance(result, Tensor) else list(result)


def error(model: Program, reference: Program, inputs: tuple[Tensor, ...]) -> float:
    pairs = zip(outputs(model, inputs), outputs(reference, inputs), strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12)) for a, b in pairs)


@pytest.mark.parametrize("seed", range(20))
def test_mask_equals_slice(architecture: str, seed: int) -> None:
    teacher = program(architecture)
    space = space_of(teacher)
    subnet = space.sample(seed)
    student, masked = slice_program(teacher, subnet), mask_program(teacher, subnet)
    assert error(student, masked, teacher.example_inputs(3, seed)) <= 1e-5
    assert student.cost() == space.cost(subnet)
    assert student.cost().parameters == sum(student.state[name].numel() for name in student.trainable)


def test_full_is_the_identity(architecture: str) -> None:
    teacher = program(architecture)
    full = space_of(teacher).full()
    assert slice_program(teacher, full).fingerprint == teacher.fingerprint
    assert error(mask_program(teacher, full), teacher, teacher.example_inputs(2)) == 0


def test_random_subnets_differ_from_the_teacher(architecture: str) -> None:
    """The invariants would be empty if nothing were removed."""
    teacher = program(architecture)
    subnet = space_of(teacher).sample(0, keep=0.5)
    student = slice_program(teacher, subnet)
    assert student.cost().parameters < 0.8 * teacher.cost().parameters
    assert error(student, teacher, teacher.example_inputs(2)) > 1e-3


def test_slicing_composes(architecture: str) -> None:
    """What is left of a slice can be sliced again, with the same guarantees."""
    first = slice_program(program(architecture), space_of(program(architecture)).sample(1, keep=0.75))
    subnet = SearchSpace(first).sample(2)
    assert error(slice_program(first, subnet), mask_program(first, subnet), first.example_inputs(2)) <= 1e-5


def test_a_slice_saved_and_loaded_is_the_same(architecture: str, tmp_path: Path) -> None:
    teacher = program(architecture)
    student = slice_program(teacher, space_of(teacher).sample(4))
    student.save(tmp_path / "student.pt2")
    assert load(tmp_path / "student.pt2").fingerprint == student.fingerprint


def test_a_slice_trains(architecture: str) -> None:
    teacher = program(architecture)
    student = slice_program(teacher, space_of(teacher).sample(3))
    module = student.module(train=True)
    sum(o.float().square().mean() for o in module(*teacher.example_inputs(4))).backward()
    gradients = [p.grad for p in module.parameters()]
    assert any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
    assert all(g is None or bool(torch.isfinite(g).all()) for g in gradients)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(recipe=recipes(), seed=st.integers(0, 1000))
def test_generated_graphs(recipe: Recipe, seed: int) -> None:
    generated = recipe.program()
    space = space_of(generated)
    subnet = space.sample(seed)
    student = slice_program(generated, subnet)
    assert error(student, mask_program(generated, subnet), generated.example_inputs(3, seed)) <= 1e-5
    assert student.cost() == space.cost(subnet)
