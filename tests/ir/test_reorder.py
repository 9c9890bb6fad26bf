"""Reordered units: the same outputs, and slices that follow the order."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.ir.reorder import reorder
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from tests.models import program
from tests.passes.support import error
from tests.strategies import Recipe, recipes


def shuffled(model: Program, seed: int = 0) -> dict[str, list[int]]:
    random = torch.Generator().manual_seed(seed)
    return {g.name: torch.randperm(g.size, generator=random).tolist() for g in space_of(model).groups}


def check(model: Program) -> None:
    orders = shuffled(model)
    other = reorder(model, orders)
    assert error(model, other) <= 1e-4
    assert space_of(other).id == space_of(model).id
    leading = {g.name: range(max(1, g.size // 2)) for g in space_of(model).groups}
    ours = {name: [orders[name][i] for i in units] for name, units in leading.items()}
    first = slice_program(other, space_of(other).choose(leading))
    assert error(slice_program(model, space_of(model).choose(ours)), first) <= 1e-4


def test_the_outputs_stay_and_leading_units_are_those_of_the_order(architecture: str) -> None:
    check(program(architecture))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes())
def test_generated_graphs_too(recipe: Recipe) -> None:
    check(recipe.program())


def test_weights_move(architecture: str) -> None:
    model = program(architecture)
    assert reorder(model, shuffled(model)).fingerprint != model.fingerprint
    assert reorder(model, {}).fingerprint == model.fingerprint


@pytest.mark.parametrize("order", [[0], [0] * 8, range(1, 9)])
def test_what_is_no_permutation_is_refused(order: list[int]) -> None:
    model = program("resnet_a")
    with pytest.raises(InputError, match="is no order of"):
        reorder(model, {space_of(model).groups[0].name: order})
