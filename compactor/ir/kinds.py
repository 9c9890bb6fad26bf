"""What the axes of a group are: channels, heads, units of a feed-forward layer, or the residual stream."""

from functools import cached_property
from typing import TYPE_CHECKING

from torch import fx

from compactor.ir.axes import Axes
from compactor.ir.graphs import groups_of, op_name

if TYPE_CHECKING:
    from compactor.ir.space import SearchSpace

_CONTRACTIONS = ("scaled_dot_product_attention", "matmul", "bmm", "einsum")
_TRANSPOSES = ("t", "numpy_T", "transpose", "permute")


class Kinds:
    """Tells the kind of a group by where its units go."""

    def __init__(self, space: "SearchSpace") -> None:
        self._program = space.program
        self._heads, self._hidden = _heads(space), _hidden(space)

    def of(self, unit: int, members: list[tuple[str, int]]) -> str:
        """The kind of a group, by one of its units (a component) and its (tensor, dimension) members."""
        if unit in self._heads:
            return "heads"
        if self._convolved(members, stream=unit in self._hidden, attention=bool(self._heads)):
            return "channels"
        return "hidden" if unit in self._hidden else "ffn"

    def _convolved(self, places: list[tuple[str, int]], *, stream: bool, attention: bool) -> bool:
        """Whether an axis is one of channels: convolutions work on it, more than matrices do where there is attention.

        A stream that convolutions only make, as patches are embedded, and that matrices read is none.
        """
        convolutions = [(name, dim) for name, dim in places if name in self._filters]
        matrices = sum(name not in self._filters and self._program.state[name].dim() > 1 for name, _ in places)
        if attention or (stream and not any(dim == 1 or self._filters[name] > 1 for name, dim in convolutions)):
            return len(convolutions) > matrices
        return bool(convolutions)

    @cached_property
    def _filters(self) -> dict[str, int]:
        """Groups of the convolution that reads each filter; one along a sequence with a window of 1 is a matrix."""
        found = {}
        for node in (n for n in self._program.graph.nodes if n.op == "call_function"):
            weight = node.args[1] if op_name(node).startswith("conv") else None
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                name = str(weight.target)
                if tuple(self._program.state[name].shape[2:]) != (1,):
                    found[name] = groups_of(node)
        return found


def _heads(space: "SearchSpace") -> set[int]:
    """Components that are attention heads."""
    components, nodes = space.analysis.components, {n.name: n for n in space.program.graph.nodes}
    heads: set[int] = set()
    for left, _, name in space.analysis.coupling.edges():
        node = nodes.get(name)
        if node is not None and op_name(node) in _CONTRACTIONS and not _weighs(node):
            heads.update(components[left].tolist())
    for node, axes in space.analysis.axes.items():
        if op_name(node) == "scaled_dot_product_attention" and isinstance(axes, Axes):
            heads.update(components[i] for c in axes.clusters for i in c.ids.ravel().tolist())
    return heads


def _hidden(space: "SearchSpace") -> set[int]:
    """Components that lie on a residual stream."""
    entries = {b.entry for b in space.blocks}
    hidden: set[int] = set()
    for node in (n for n in space.program.graph.nodes if n.name in entries):
        for cluster in space.analysis.of(node).clusters:
            hidden.update(space.analysis.components[cluster.ids].ravel().tolist())
    return hidden


def _weighs(node: fx.Node) -> bool:
    """Whether a product has a weight, perhaps transposed, for an operand."""
    if op_name(node) == "scaled_dot_product_attention":
        return False
    transposed = [n.all_input_nodes[0] for n in node.all_input_nodes if op_name(n) in _TRANSPOSES]
    return any(n.op == "get_attr" for n in (*node.all_input_nodes, *transposed))
