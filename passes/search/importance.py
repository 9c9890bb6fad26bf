"""How much a block or a unit matters, without training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import AxisGroup, SearchSpace


def block_damage(program: Program, space: SearchSpace, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Relative change of the outputs when one block alone is removed, by block name."""
    reference = _outputs(program, inputs)
    damage = {}
    for block in space.blocks:
        removed = slice_program(program, space.choose({}, (block.name,)))
        change = (_outputs(removed, inputs) - reference).norm() / reference.norm().clamp_min(1e-12)
        damage[block.name] = float(change)
    return damage


def _outputs(program: Program, inputs: Sequence[Tensor]) -> Tensor:
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
