"""Reordering: the units of axis groups in another order, and the same outputs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from compactor.errors import InputError, InternalError
from compactor.ir.axes import Ids
from compactor.ir.program import Program
from compactor.ir.space import space_of

TOLERANCE = 1e-3
"""Relative error allowed; what rounding leaves is a thousand times less."""


def reorder(program: Program, orders: Mapping[str, Sequence[int]]) -> Program:
    """The Program with unit ``orders[group][i]`` at place i, for every group named; its outputs are the same.

    So that the most important units lead, and subnets of leading units nest. Raises `InputError` for what is no
    permutation of a group's units, `InternalError` when the outputs differ.
    """
    space, state = space_of(program), dict(program.state)
    for group in space.groups:
        order = orders.get(group.name, range(group.size))
        if sorted(order) != list(range(group.size)):
            raise InputError(f"{list(order)[:8]} is no order of {group.name!r}", f"give each of 0..{group.size - 1}")
        for tensor, dim, place in space.positions(group):
            state[tensor] = state[tensor].index_select(dim, _sources(place, order))
    reordered = program.evolve(state=state)
    _check(program, reordered)
    return reordered


def _sources(place: Ids, order: Sequence[int]) -> Tensor:
    """Which index of a dimension goes to each place; ``place``: the unit of each index or -1."""
    sources = np.arange(len(place))
    inside = np.flatnonzero(place >= 0)
    units = inside[np.argsort(place[inside], kind="stable")].reshape(len(order), -1)
    sources[units] = units[list(order)]
    return torch.from_numpy(sources)


def _check(before: Program, after: Program) -> None:
    inputs = before.example_inputs(1)
    for was, now in zip(_outputs(before, inputs), _outputs(after, inputs), strict=True):
        if float((was - now).norm()) > TOLERANCE * max(float(was.norm()), 1e-12):
            raise InternalError("reordered units compute something else", "please report this model")


def _outputs(program: Program, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    found = program(*inputs)
    return [o.double() for o in ((found,) if isinstance(found, Tensor) else found)]
