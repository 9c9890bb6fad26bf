"""How much a block or a unit matters, without training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import AxisGroup, SearchSpace
from compactor.pipeline.context import PassContext


@dataclass(frozen=True)
class Importance:
    """What searches may shrink, ranked.

    Attributes:
        orders: units of each group that may shrink, the most important first.
        damage: relative change of the outputs without each block; empty where blocks stay.
    """

    orders: dict[str, list[int]]
    damage: dict[str, float]


def rank(
    program: Program, space: SearchSpace, ctx: PassContext, *, samples: int, hidden: bool, depth: bool = True
) -> Importance:
    """Rank units by magnitude, and blocks by damage on calibration samples when ``depth``."""
    damage = {}
    if depth and space.blocks:
        samples = min(samples, len(ctx.data.train))
        damage = block_damage(program, space, ctx.data.calibration(samples, ctx.seed).inputs)
    groups = [g for g in space.groups if hidden or g.kind != "hidden"]
    magnitude = {g.name: unit_magnitude(program, space, g) for g in groups}
    orders = {name: values.argsort(descending=True, stable=True).tolist() for name, values in magnitude.items()}
    return Importance(orders, damage)


def block_damage(program: Program, space: SearchSpace, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Relative change of the outputs when one block alone is removed, by block name."""
    reference = flat_outputs(program, inputs)
    damage = {}
    for block in space.blocks:
        removed = slice_program(program, space.choose({}, (block.name,)))
        change = (flat_outputs(removed, inputs) - reference).norm() / reference.norm().clamp_min(1e-12)
        damage[block.name] = float(change)
    return damage


def flat_outputs(program: Program, inputs: Sequence[Tensor]) -> Tensor:
    """All outputs one after the other, float32."""
    result = program(*inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    return torch.cat([o.float().flatten() for o in outputs])


def unit_magnitude(program: Program, space: SearchSpace, group: AxisGroup) -> Tensor:
    """(size,) L2 magnitude of each unit: squares of its weights, every member tensor scaled to mean one."""
    total = torch.zeros(group.size)
    for tensor, dim, place in space.positions(group):
        value = program.state[tensor]
        if tensor not in program.trainable or not value.is_floating_point():
            continue
        square = value.detach().float().square().movedim(dim, 0).reshape(value.shape[dim], -1).sum(1)
        index = torch.from_numpy(place)
        inside = index >= 0
        sums = torch.zeros(group.size).index_add_(0, index[inside], square[inside])
        total += sums / sums.mean().clamp_min(1e-12)
    return total.sqrt()
