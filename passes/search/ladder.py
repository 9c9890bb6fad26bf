"""The candidates of `search.uniform`: every level of depth with every level of width."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compactor.ir.blocks import Block
from compactor.ir.program import Program
from compactor.ir.space import AxisGroup, SearchSpace
from compactor.ir.subnet import Subnet
from compactor.passes.search.importance import Importance


@dataclass(frozen=True)
class Candidate:
    """One choice; ``depth`` and ``width`` are the shares of blocks and of units that are kept."""

    subnet: Subnet
    depth: float
    width: float


def candidates(
    space: SearchSpace,
    importance: Importance,
    *,
    widths: Sequence[float],
    multiple: int,
) -> Iterator[Candidate]:
    """All levels: classes of like blocks lose the same share, one block at a time; axis groups keep the same share.

    Within a class the least damaging blocks go first, within a group the smallest units.
    """
    damage, orders = importance.damage, importance.orders
    order = removal_order(block_classes(space.program, space.blocks), damage) if damage else []
    for step in range(len(order) + 1):
        gone = order[:step]
        for width in widths:
            kept = {g.name: orders[g.name][: count(g, width, multiple)] for g in space.groups if g.name in orders}
            total = max(len(space.blocks), 1)
            yield Candidate(space.choose(kept, gone), 1 - len(gone) / total, width)


def block_classes(program: Program, blocks: Sequence[Block]) -> list[list[str]]:
    """Names of blocks that do the same work: same input shape, same tensor shapes."""
    nodes = {n.name: n for n in program.graph.nodes}
    classes: dict[tuple[object, ...], list[str]] = {}
    for block in blocks:
        shapes = sorted(tuple(program.state[t].shape) for t in block.tensors)
        key = (tuple(program.values[nodes[block.entry]].shape), tuple(shapes))
        classes.setdefault(key, []).append(block.name)
    return list(classes.values())


def removal_order(classes: Sequence[Sequence[str]], damage: Mapping[str, float]) -> list[str]:
    """All blocks in the order in which they go: classes take turns by the share they have lost, then by damage."""
    ranked = [sorted(members, key=lambda name: (damage[name], name)) for members in classes]
    turns = [((i + 1) / len(members), damage[name], name) for members in ranked for i, name in enumerate(members)]
    return [name for _, _, name in sorted(turns)]


def count(group: AxisGroup, width: float, multiple: int) -> int:
    """Units at a share ``width`` of a group: a multiple of ``multiple`` where the axis is long enough, at least one."""
    units = max(1, round(width * group.size))
    if group.size >= 2 * multiple:
        units = max(multiple, round(units / multiple) * multiple)
    return min(units, group.size)


def widths(smallest: float) -> list[float]:
    """Shares from 1 down to ``smallest`` in sixteenths."""
    return [1 - i / 16 for i in range(round((1 - smallest) * 16) + 1)]
