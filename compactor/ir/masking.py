"""Masking: a Subnet applied softly. Shapes stay, removed indices are zero and nothing depends on them."""

from collections.abc import Mapping, Sequence
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


_LEAST = 1e-6
"""Below the share of one open index of any axis."""


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

    def gate(self, node: Any, dims: Sequence[int], before: fx.Node) -> fx.Node | None:
        """0 at removed indices of ``dims`` of an original value and 1 elsewhere, broadcastable to it, inserted before a
        node; None when all are kept."""
        array = self._array(node, dims)
        if array is None:
            return None
        name = f"_mask_{len(self.state)}"
        self.state[name] = torch.from_numpy(array).to(self.dtype(node))
        with self.graph.inserting_before(before):
            return self.graph.get_attr(name)

    def zeroed(self, node: Any, value: Any, before: fx.Node, dims: Sequence[int]) -> Any:
        """``value`` with removed indices of ``dims`` set to zero, inserted before a node."""
        rank = len(self.shape(node))
        gate = self.gate(node, [d % rank for d in dims], before)
        if gate is None:
            return value
        with self.graph.inserting_before(before):
            return self.graph.call_function(aten.mul.Tensor, (value, gate))

    def weights(self, node: fx.Node, tensor: Tensor) -> Tensor:
        """A weight with removed indices set to zero."""
        array = self._array(node, range(tensor.dim()))
        return tensor if array is None else tensor * torch.from_numpy(array).to(tensor.dtype)

    def share(self, gate: fx.Node, dims: Sequence[int], *, keep: bool) -> fx.Node:
        """How much of ``dims`` is open, inserted where the graph stands; never 0, so that one may divide by it."""
        found = self.graph.call_function(aten.mean.dim, (gate, dims, keep))
        return self.graph.call_function(aten.clamp_min.default, (found, _LEAST))

    def normalise(
        self, before: fx.Node, value: Any, gate: fx.Node, dims: list[int], eps: float, *, centre: bool
    ) -> fx.Node:
        """(x - mean) / sqrt(var + eps) over the open indices of ``dims``, zero elsewhere, inserted before a node.

        ``gate`` is 0 or 1 and has the rank of ``value``.
        """
        graph = self.graph
        with graph.inserting_before(before):
            share = self.share(gate, dims, keep=True)

            def mean(node: Any) -> fx.Node:
                return graph.call_function(
                    aten.div.Tensor, (graph.call_function(aten.mean.dim, (node, dims, True)), share)
                )

            value = graph.call_function(aten.mul.Tensor, (value, gate))
            if centre:
                value = graph.call_function(aten.sub.Tensor, (value, mean(value)))
                value = graph.call_function(aten.mul.Tensor, (value, gate))
            square = graph.call_function(aten.mul.Tensor, (value, value))
            shifted = graph.call_function(aten.add.Tensor, (mean(square), eps))
            return graph.call_function(aten.mul.Tensor, (value, graph.call_function(aten.rsqrt.default, (shifted,))))

    def _array(self, node: Any, dims: Sequence[int]) -> "Alive | None":
        """Outer mask over these dimensions, broadcastable to the value; None when everything is kept."""
        shape, axes = self.shape(node), self._space.analysis.of(node)
        kept = self._space.kept_indices(axes, self._alive) if axes.shape else []
        mask = np.ones([1] * len(shape), bool)
        for dim in dims:
            alive = kept[dim]
            if alive is not None:
                mask = mask & alive.reshape([-1 if d == dim else 1 for d in range(len(shape))])
        return None if mask.all() else mask


def mask_program(program: Program, subnet: Subnet) -> Program:
    """The Program with removed indices zeroed and removed blocks gated off; same shapes as before.

    Raises `InputError` when the Subnet is not one of the Program's space.
    """
    from compactor.ir.space import space_of

    space = space_of(program)
    subnet = space.check(subnet)
    graph, mapping = graphs.copy_graph(program.graph)
    removed = {mapping[end]: mapping[entry] for end, entry in space.replaced(subnet).items()}
    gate_blocks(graph, removed, dict.fromkeys(removed, 0.0))
    masking = Masking(space, subnet, graph)
    state = {str(n.target): masking.weights(n, program.state[str(n.target)]) for n in mapping if n.op == "get_attr"}
    correct(program, mapping, masking)
    graph.lint()
    return program.evolve(graph=graph, state={**state, **masking.state})


def correct(program: Program, mapping: Mapping[fx.Node, fx.Node], masking: Masking) -> None:
    """Edit the ops of a copy (``mapping``: from the original) that would see removed indices."""
    from compactor.ir.rules import find_masked

    for old, new in mapping.items():
        rule = find_masked(old) if old.op == "call_function" else None
        if rule is not None and isinstance(program.values[old], Tensor):
            rule(old, new, masking)


def gate_blocks(graph: fx.Graph, blocks: Mapping[fx.Node, fx.Node], factors: Mapping[fx.Node, Any]) -> None:
    """Each exit becomes entry + factor * (exit - entry). ``blocks``: exit -> entry; ``factors``: by exit."""
    current: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node in blocks:
            entry = current.get(blocks[node], blocks[node])
            with graph.inserting_after(node):
                difference = graph.call_function(aten.sub.Tensor, (node, entry))
            with graph.inserting_after(difference):
                share = graph.call_function(aten.mul.Tensor, (difference, factors[node]))
            with graph.inserting_after(share):
                gated = graph.call_function(aten.add.Tensor, (entry, share))
            node.replace_all_uses_with(gated, delete_user_cb=lambda user, own=difference: user is not own)
            current[node] = gated
