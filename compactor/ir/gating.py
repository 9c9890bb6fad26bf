"""Gating: a Program with a number from 0 to 1 on every unit and block, differentiable in weights and gates.

The soft form of masking. A unit is gated where its values are summed: in the columns of the matrices and filters that
read it, so that a norm between producer and reader cannot undo the gate, and the gates of a trained student fold into
its weights. Statistics of norms run over the indices whose gate is not zero (CoFi, ACL 2022, section 3.1).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from compactor.ir import graphs
from compactor.ir.axes import Axes
from compactor.ir.graphs import op_name
from compactor.ir.masking import Masking, correct, gate_blocks
from compactor.ir.program import Program

if TYPE_CHECKING:
    from compactor.ir.space import AxisGroup, SearchSpace

Gates = Mapping[str, Tensor]
Lines = tuple[tuple[int, Tensor], ...]
"""(dimension, components of each of its indices, (n, units that share the index))."""

_SUMMED = {"linear": (1, 1), "addmm": (2, 0), "matmul": (1, -2), "mm": (1, -2), "bmm": (1, -2)}
"""For ops with a weight: the place of the weight, and its dimension that is summed over."""


class Gated(nn.Module):
    """A Program under gates; ``module`` holds its own copy of the weights, and outputs are a tuple.

    ``groups`` and ``blocks`` are the names of what has gates. With gates of 0 and 1 the outputs are those of the sliced
    Program, with 1 for all those of the Program. ``train`` and ``dropout``: as in `Program.module`. ``shown``: nodes of
    the Program's graph that are further outputs, under the gates of one of their dimensions.
    """

    def __init__(
        self,
        program: Program,
        space: "SearchSpace",
        groups: Iterable[str],
        blocks: Iterable[str],
        *,
        train: bool,
        dropout: bool = True,
        shown: Sequence[tuple[fx.Node, int]] = (),
    ) -> None:
        super().__init__()
        named = {g.name: g for g in space.groups}
        self.groups = tuple(named[name] for name in groups)
        self.blocks = tuple(blocks)
        self.module = program.module(train=train, dropout=dropout)
        labels = _Labels(space, self.groups)
        self._units, self._components = labels.units, labels.components
        found = {name: labels.of(axes, dims) for name, axes, dims in readers(program, space, self.groups)}
        self._readers = {name: lines for name, lines in found.items() if lines}
        graph = self.module.graph
        mapping = dict(zip(program.graph.nodes, graph.nodes, strict=True))
        self._shown = [labels.of(space.analysis.of(node), [dim]) for node, dim in shown]
        output = graphs.output_node(graph)
        output.update_arg(0, (*output.args[0], *(mapping[node] for node, _ in shown)))  # type: ignore[misc]
        self._gate_blocks(graph, space, {n.name: new for n, new in mapping.items()})
        masking = _Gating(space, labels, self.module)
        correct(program, mapping, masking)
        self._open = masking.gates
        graph.lint()
        self.module.recompile()

    def forward(self, inputs: Sequence[Tensor], units: Gates, blocks: Gates) -> Any:
        """Outputs at these gates; ``units``: (size,) per group, ``blocks``: () per block, all from 0 to 1."""
        gates = self._spread(units)
        open_ = (gates > 0).to(gates.dtype)
        tensors = self._scaled(gates)
        for name, (lines, rank) in self._open.items():
            tensors[name] = _outer(open_, lines, rank)
        tensors.update({name: blocks[block] for name, block in self._factors.items()})
        outputs = functional_call(self.module, tensors, tuple(inputs))
        count = len(outputs) - len(self._shown)
        shown = zip(outputs[count:], self._shown, strict=True)
        return (*outputs[:count], *(x * _outer(gates, lines, x.dim()) if lines else x for x, lines in shown))

    def folded(self, units: Gates) -> dict[str, Tensor]:
        """The weights of the Program with the gates in them, as `Program.with_state` takes them."""
        with torch.no_grad():
            scaled = self._scaled(self._spread(units))
            state = {k: v.detach() for k, v in self.module.state_dict().items()}
            return {**state, **scaled}

    def _scaled(self, gates: Tensor) -> dict[str, Tensor]:
        tensors = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        return {n: tensors[n] * _outer(gates, lines, tensors[n].dim()) for n, lines in self._readers.items()}

    def _spread(self, units: Gates) -> Tensor:
        """The gate of every component, 1 where there is none."""
        flat = torch.cat([units[g.name] for g in self.groups]) if self.groups else torch.ones(0)
        return flat.new_ones(self._components).index_copy(0, self._units.to(flat.device), flat)

    def _gate_blocks(self, graph: fx.Graph, space: "SearchSpace", node: Mapping[str, fx.Node]) -> None:
        chosen = [b for b in space.blocks if b.name in set(self.blocks)]
        self._factors = {f"_block_{i}": b.name for i, b in enumerate(chosen)}
        ends, factors = {}, {}
        for name, block in zip(self._factors, chosen, strict=True):
            _declare(self.module, name)
            ends[node[block.exit]] = node[block.entry]
            with graph.inserting_before(node[block.exit]):
                factors[node[block.exit]] = graph.get_attr(name)
        gate_blocks(graph, ends, factors)


class _Labels:
    """Which components have gates, and where they lie on an axis."""

    def __init__(self, space: "SearchSpace", groups: Sequence["AxisGroup"]) -> None:
        self.space = space
        self.components = int(space.analysis.components.max(initial=-1)) + 1
        self.units = torch.tensor([u for g in groups for u in g.units], dtype=torch.long)
        self.gated = torch.zeros(self.components, dtype=torch.bool).index_fill(0, self.units, True)

    def of(self, axes: Axes, dims: Iterable[int]) -> Lines:
        """The gated ones of these dimensions."""
        found = []
        for dim in dims:
            cluster = axes.cluster(dim)
            if cluster is not None:
                ids = torch.from_numpy(self.space.analysis.components[cluster.ids])
                lines = ids.movedim(cluster.dims.index(dim), 0).flatten(1) if ids.dim() > 1 else ids[:, None]
                if bool(self.gated[lines].any()):
                    found.append((dim, lines))
        return tuple(found)


class _Gating(Masking):
    """Corrections with gates that are given in every step, in the place of constants."""

    def __init__(self, space: "SearchSpace", labels: _Labels, module: fx.GraphModule) -> None:
        super().__init__(space, space.full(), module.graph)
        self._labels, self._module = labels, module
        self.gates: dict[str, tuple[Lines, int]] = {}

    def gate(self, node: Any, dims: Sequence[int], before: fx.Node) -> fx.Node | None:
        """As in `Masking`, read anew in every step."""
        lines = self._labels.of(self._space.analysis.of(node), dims)
        if not lines:
            return None
        name = f"_gate_{len(self.gates)}"
        self.gates[name] = lines, len(self.shape(node))
        _declare(self._module, name)
        with self.graph.inserting_before(before):
            return self.graph.get_attr(name)


def _declare(module: nn.Module, name: str) -> None:
    """A tensor that every step gives anew."""
    module.register_buffer(name, torch.ones(()), persistent=False)


def _outer(gates: Tensor, lines: Lines, rank: int) -> Tensor:
    """The product of the gates of some dimensions, broadcastable to a tensor of this rank."""
    result = gates.new_ones([1] * rank)
    for dim, components in lines:
        line = gates[components.to(gates.device)].amax(1)  # an index that several units hold is open with any of them
        result = result * line.reshape([-1 if d == dim else 1 for d in range(rank)])
    return result


def summed_weights(program: Program) -> Iterator[tuple[fx.Node, fx.Node, int]]:
    """(op, weight, dimension that is summed over) of all ops that read values with a weight."""
    for node in program.graph.nodes:
        name = op_name(node) if node.op == "call_function" else ""
        place, dim = (1, 0 if "transpose" in name else 1) if name.startswith("conv") else _SUMMED.get(name, (0, 0))
        weight = node.args[place] if place and len(node.args) > place else None
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            yield node, weight, dim % program.state[str(weight.target)].dim()


def readers(
    program: Program, space: "SearchSpace", groups: Iterable["AxisGroup"]
) -> Iterator[tuple[str, Axes, tuple[int, ...]]]:
    """(tensor, labels, dimensions) that gates multiply: those summed over, and all of groups that no weight reads."""
    components, dims = space.analysis.components, dict[str, set[int]]()
    nodes = {str(n.target): n for n in program.graph.nodes if n.op == "get_attr"}
    read: set[int] = set()
    for _, weight, dim in summed_weights(program):
        cluster = space.analysis.of(weight).cluster(dim)
        if cluster is not None:
            dims.setdefault(str(weight.target), set()).add(dim)
            read.update(components[cluster.ids].ravel().tolist())
    for group in groups:
        if read.isdisjoint(group.units):
            for tensor, dim, _ in group.members:
                if tensor in program.trainable:
                    dims.setdefault(tensor, set()).add(dim)
    for tensor, found in dims.items():
        yield tensor, space.analysis.of(nodes[tensor]), tuple(sorted(found))
