"""The candidates of `search.uniform`: every level of depth with every level of width."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from compactor.ir.blocks import Block
from compactor.ir.program import Program
from compactor.ir.space import AxisGroup, SearchSpace
from compactor.ir.subnet import Subnet


@dataclass(frozen=True)
class Candidate:
    """One choice; ``depth`` and ``width`` are the shares of blocks and of units that are kept."""

    subnet: Subnet
    depth: float
    width: float


def candidates(
    space: SearchSpace,
    damage: Mapping[str, float],
    magnitude: Mapping[str, Tensor],
    *,
    widths: Sequence[float],
    depth: bool,
    multiple: int,
) -> Iterator[Candidate]:
    """All levels: classes of like blocks lose the same share, one block at a time; axis groups keep the same share.

    Within a class the least damaging blocks go first, within a group the smallest units.
    """
    order = removal_order(block_classes(space.program, space.blocks), damage) if depth else []
    orders = {name: values.argsort(descending=True, stable=True).tolist() for name, values in magnitude.items()}
    for step in range(len(order) + 1):
        gone = order[:step]
        for width in widths:
            kept = {g.name: orders[g.name][: _count(g, width, multiple)] for g in space.groups if g.name in orders}
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


def _count(group: AxisGroup, width: float, multiple: int) -> int:
    count = max(1, round(width * group.size))
    if group.size >= 2 * multiple:
        count = max(multiple, round(count / multiple) * multiple)
    return min(count, group.size)
