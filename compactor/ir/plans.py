"""Kernels of subnets without grouping again: one grouping is recorded, and repeated for other sizes and depths."""

from typing import TYPE_CHECKING

from compactor.ir.grouping import Grouping
from compactor.ir.kernels import Kernel
from compactor.ir.removal import Removal
from compactor.ir.sizes import Sizes
from compactor.ir.space import rewired
from compactor.ir.subnet import Subnet
from compactor.ir.tape import Replay, Tape

if TYPE_CHECKING:
    from compactor.ir.space import SearchSpace


class Plan:
    """The kernels of the subnets of a space, equal to those of the sliced Program.

    Attributes:
        names: (kind, node) of each kernel of the whole graph.
        sizes: the variables that ``replay`` computes the kernels' numbers from.
        replay: for values of these, one row per kernel: macs, inputs, weights, outputs, groups, rows, columns,
            depth, and what is fused.
    """

    def __init__(self, space: "SearchSpace") -> None:
        graph, mapping = rewired(space.program.graph, {})
        self.sizes, tape = Sizes(space), Tape()
        shapes = {mapping[n]: self.sizes.traced(tape, s) for n, s in self.sizes.shapes.items() if n in mapping}
        grouping = Grouping(graph, {node: shape for node, shape in shapes.items() if shape is not None})
        kernels = grouping.run()
        self.names = [(k.kind, k.node) for k in kernels]
        self.replay = Replay(tape, [_numbers(k) for k in kernels])
        node = {n.name: mapping.get(n) for n in space.program.graph.nodes}
        ends = {b.name: (node[b.exit], node[b.entry]) for b in space.blocks}
        self._removal = Removal(grouping, ends)

    def kernels(self, subnet: Subnet) -> tuple[Kernel, ...] | None:
        """The kernels, or None where the recorded grouping does not tell them."""
        left = self._removal.left(subnet.dropped) if subnet.dropped else range(len(self.names))
        table = self.replay.run(self.sizes.of(subnet)) if left is not None else None
        if left is None or table is None:
            return None
        return tuple(_kernel(*self.names[i], table[i].tolist()) for i in left)


def _kernel(kind: str, node: str, numbers: list[int]) -> Kernel:
    macs, inputs, weights, outputs, groups, rows, columns, depth, *fused = numbers
    return Kernel(kind, macs, inputs, weights, outputs, node, groups, rows, columns, depth, tuple(fused))


def _numbers(k: Kernel) -> tuple[int, ...]:
    return k.macs, k.inputs, k.weights, k.outputs, k.groups, k.rows, k.columns, k.depth, *k.fused
