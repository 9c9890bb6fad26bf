"""Masking: a Subnet applied softly. Shapes stay, removed indices are zero and nothing depends on them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.ir.shapes import Shape
from compactor.ir.subnet import Subnet

if TYPE_CHECKING:
    from compactor.ir.space import Alive, SearchSpace


class Masking:
    """The state of one masking; corrections use it to edit the new graph."""

    def __init__(self, space: "SearchSpace", subnet: Subnet, graph: fx.Graph) -> None:
        self._space = space
        self._alive = space.alive(subnet)
        self.graph = graph
        self.state: dict[str, Tensor] = {}

    def shape(self, node: Any) -> Shape:
        """Shape of a value of the original graph."""
        return self._space.analysis.shape(node)

    def dtype(self, node: Any) -> torch.dtype:
        """Dtype of a value of the original graph."""
        dtype: torch.dtype = self._space.program.values[node].dtype
        return dtype

    def alive(self, node: Any, dim: int) -> "Alive | None":
        """Which indices of a dimension are kept; None when it is fixed."""
        axes = self._space.analysis.of(node)
        return self._space.kept_indices(axes, self._alive)[dim] if axes.shape else None

    def _array(self, node: Any, dims: list[int]) -> "Alive | None":
        """Outer mask over these dimensions, broadcastable to the value; None when everything is kept."""
        shape = self.shape(node)
        mask = np.ones([1] * len(shape), bool)
        for dim in dims:
            alive = self.alive(node, dim)
            if alive is not None:
                mask = mask & alive.reshape([-1 if d == dim else 1 for d in range(len(shape))])
        return None if mask.all() else mask

    def constant(self, array: "Alive", dtype: torch.dtype) -> fx.Node:
        """A constant at the insertion point."""
        name = f"_mask_{len(self.state)}"
        self.state[name] = torch.from_numpy(array).to(dtype)
        return self.graph.get_attr(name)

    def mask(self, node: Any, dims: list[int]) -> "Alive | None":
        """Outer mask over ``dims``, or None when they are kept whole."""
        return self._array(node, dims)

    def share(self, node: Any, dims: list[int]) -> float:
        """All indices over kept ones, for means."""
        ratio = 1.0
        for dim in dims:
            alive = self.alive(node, dim)
            ratio *= 1.0 if alive is None else len(alive) / int(alive.sum())
        return ratio

    def zeroed(self, node: Any, value: Any, before: fx.Node, dims: Sequence[int] | None = None) -> Any:
        """``value`` with removed indices of ``dims`` (None: all) set to zero, inserted before a node."""
        rank = len(self.shape(node))
        array = self._array(node, [d % rank for d in (range(rank) if dims is None else dims)])
        if array is None:
            return value
        with self.graph.inserting_before(before):
            return self.graph.call_function(aten.mul.Tensor, (value, self.constant(array, self.dtype(node))))

    def weights(self, node: fx.Node, tensor: Tensor) -> Tensor:
        """A weight with removed indices set to zero."""
        array = self._array(node, list(range(tensor.dim())))
        return tensor if array is None else tensor * torch.from_numpy(array).to(tensor.dtype)

    def normalise(
        self,
        before: fx.Node,
        mask: "Alive",
        dims: list[int],
        eps: float,
        *,
        centre: bool,
        source: fx.Node | None = None,
        kept: int | None = None,
    ) -> fx.Node:
        """(x - mean) / sqrt(var + eps) over the kept indices of ``dims``, zero elsewhere, inserted before a node."""
        graph = self.graph
        value: Any = before.args[0] if source is None else source
        if kept is None:
            shape = before.meta["shape"]
            kept = int(np.prod([mask.shape[d] if mask.shape[d] > 1 else shape[d] for d in dims], dtype=np.int64))
            kept = kept * int(mask.sum()) // mask.size
        with graph.inserting_before(before):
            gate = self.constant(mask, before.meta["dtype"])

            def mean(node: Any) -> fx.Node:
                total = graph.call_function(aten.sum.dim_IntList, (node, dims, True))
                return graph.call_function(aten.div.Tensor, (total, float(kept)))

            value = graph.call_function(aten.mul.Tensor, (value, gate))
            if centre:
                value = graph.call_function(aten.sub.Tensor, (value, mean(value)))
                value = graph.call_function(aten.mul.Tensor, (value, gate))
            square = graph.call_function(aten.mul.Tensor, (value, value))
            shifted = graph.call_function(aten.add.Tensor, (mean(square), eps))
            return graph.call_function(aten.mul.Tensor, (value, graph.call_function(aten.rsqrt.default, (shifted,))))


def mask_program(program: Program, subnet: Subnet) -> Program:
    """The Program with removed indices zeroed and removed blocks gated off; same shapes as before.

    Raises `InputError` when the Subnet is not one of the Program's space.
    """
    from compactor.ir.rules import find_masked
    from compactor.ir.space import space_of

    space = space_of(program)
    subnet = space.check(subnet)
    graph, mapping = graphs.copy_graph(program.graph)
    gate_blocks(graph, {mapping[end]: mapping[entry] for end, entry in space.replaced(subnet).items()})
    masking = Masking(space, subnet, graph)
    state = {}
    for old, new in mapping.items():
        correct = find_masked(old) if old.op == "call_function" else None
        if correct is not None and isinstance(program.values[old], Tensor):
            new.meta = {"shape": masking.shape(old), "dtype": masking.dtype(old)}
            correct(old, new, masking)
        elif old.op == "get_attr":
            state[str(old.target)] = masking.weights(old, program.state[str(old.target)])
    graph.lint()
    return program.evolve(graph=graph, state={**state, **masking.state})


def gate_blocks(graph: fx.Graph, removed: dict[fx.Node, fx.Node]) -> None:
    """exit becomes entry + 0 * (exit - entry)."""
    current: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node in removed:
            entry = current.get(removed[node], removed[node])
            with graph.inserting_after(node):
                difference = graph.call_function(aten.sub.Tensor, (node, entry))
            with graph.inserting_after(difference):
                nothing = graph.call_function(aten.mul.Tensor, (difference, 0.0))
            with graph.inserting_after(nothing):
                gated = graph.call_function(aten.add.Tensor, (entry, nothing))
            node.replace_all_uses_with(gated, delete_user_cb=lambda user, own=difference: user is not own)
            current[node] = gated
