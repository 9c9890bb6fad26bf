"""`SearchSpace`: everything that may be chosen about a Program, and what each choice would cost."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from compactor.errors import InputError, InternalError
from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes, Ids, is_product, project
from compactor.ir.blocks import Block, find_blocks, live_nodes
from compactor.ir.cost import Cost, kernels_of
from compactor.ir.graphs import groups_of, op_name
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.ir.subnet import Subnet

if TYPE_CHECKING:
    from compactor.ir.plans import Plan

Alive = NDArray[np.bool_]
Shapes = dict[fx.Node, Any]


@dataclass(frozen=True)
class AxisGroup:
    """Axes that keep the same indices.

    Attributes:
        name: first member, ``tensor:dimension``.
        kind: channels, heads, ffn or hidden.
        size: number of units; one unit is the smallest thing that can be removed.
        members: (tensor, dimension, indices of that dimension per unit).
        parameters: trainable elements in the member tensors that lie on its units.
        units: component of each unit.
    """

    name: str
    kind: str
    size: int
    members: tuple[tuple[str, int, int], ...]
    parameters: int
    units: tuple[int, ...]


@dataclass(frozen=True)
class Pinned:
    """An axis, or a part of one, that must be kept whole, and why."""

    tensor: str
    dim: int
    size: int
    node: str
    reason: str


_CUTS = ("split", "split_with_sizes", "chunk", "tensor_split", "unbind", "slice", "narrow", "select")
_TRANSPOSES = ("t", "numpy_T", "transpose", "permute")


class SearchSpace:
    """All groups and blocks of a Program.

    Attributes:
        groups: axis groups, in order of first appearance.
        blocks: residual blocks, in graph order.
        pinned: axes that are not free, with reasons.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.analysis = Analysis(program)
        self.blocks: tuple[Block, ...] = tuple(find_blocks(program))
        self._tensors = {str(n.target): n for n in program.graph.nodes if n.op == "get_attr"}
        self._nodes = {n.name: n for n in program.graph.nodes}
        self.groups: tuple[AxisGroup, ...] = tuple(self._find_groups())
        self.pinned: tuple[Pinned, ...] = tuple(self._find_pinned())
        self._group = {g.name: g for g in self.groups}
        self._block = {b.name: b for b in self.blocks}

    @cached_property
    def id(self) -> str:
        """sha256 over names and sizes of groups and blocks: tells subnets of different spaces apart."""
        text = repr([(g.name, g.size) for g in self.groups]) + repr([b.name for b in self.blocks])
        return hashlib.sha256(text.encode()).hexdigest()

    def full(self) -> Subnet:
        """The choice that keeps everything."""
        return Subnet(self.id)

    def sample(self, seed: int, keep: float | tuple[float, float] = (0.25, 1.0), depth: float = 0.75) -> Subnet:
        """A random choice: a share ``keep`` of every group's units, each block with probability ``depth``."""
        rng = np.random.default_rng(seed)
        kept = {}
        for group in self.groups:
            share = rng.uniform(*keep) if isinstance(keep, tuple) else keep
            count = min(group.size, max(1, round(share * group.size)))
            kept[group.name] = tuple(int(i) for i in sorted(rng.choice(group.size, count, replace=False)))
        dropped = tuple(b.name for b in self.blocks if rng.random() > depth)
        return self.choose(kept, dropped)

    def choose(self, kept: Mapping[str, Sequence[int]], dropped: Sequence[str] = ()) -> Subnet:
        """A checked Subnet. Raises `InputError` for unknown names, empty or out-of-range choices."""
        for name, units in kept.items():
            group = self._group.get(name)
            if group is None:
                raise InputError(f"no group {name!r} in this search space", "see `compactor inspect` for the names")
            if not units or min(units) < 0 or max(units) >= group.size:
                raise InputError(
                    f"group {name!r} cannot keep {list(units)[:8]}", f"keep 1 to {group.size} of 0..{group.size - 1}"
                )
        for name in dropped:
            if name not in self._block:
                raise InputError(f"no block {name!r} in this search space", "see `compactor inspect` for the names")
        smaller = {k: tuple(v) for k, v in kept.items() if len(set(v)) < self._group[k].size}
        return Subnet.of(self.id, smaller, tuple(dropped))

    def check(self, subnet: Subnet) -> Subnet:
        """The Subnet, if it is one of this space. Raises `InputError`."""
        if subnet.space != self.id:
            raise InputError(
                f"the subnet belongs to another search space ({subnet.space[:12]}, this one is {self.id[:12]})",
                "choose it from the SearchSpace of the Program that is sliced",
            )
        return self.choose(dict(subnet.kept), subnet.dropped)

    def positions(self, group: AxisGroup) -> Iterator[tuple[str, int, Ids]]:
        """(tensor, dimension, unit position of each index or -1) for every member of a group."""
        number = np.full(int(self.analysis.components.max(initial=-1)) + 1, -1)
        number[list(group.units)] = np.arange(group.size)
        for tensor, dim, ids in self.axes:
            place = number[self.analysis.components[ids]]
            if (place >= 0).any():
                yield tensor, dim, place

    # -- what a choice means ---------------------------------------------------------------------------------------

    def alive(self, subnet: Subnet) -> Alive:
        """For every component: is it kept?"""
        alive = np.ones(int(self.analysis.components.max(initial=-1)) + 1, bool)
        for name, units in subnet.kept:
            group = self._group[name]
            gone = np.ones(group.size, bool)
            gone[list(units)] = False
            alive[np.array(group.units)[gone]] = False
        return alive

    def replaced(self, subnet: Subnet) -> dict[fx.Node, fx.Node]:
        """Exit node -> entry node of every removed block."""
        chosen = [self._block[name] for name in subnet.dropped]
        return {self._nodes[b.exit]: self._nodes[b.entry] for b in chosen}

    def kept_indices(self, axes: Axes, alive: Alive) -> list[Alive | None]:
        """Per dimension of a value, which indices are kept (None: all, it is fixed)."""
        result: list[Alive | None] = [None] * len(axes.shape)
        for cluster in axes.clusters:
            kept = alive[self.analysis.components[cluster.ids]]
            if not is_product(kept):
                raise InternalError("what is kept of a view is no product of index sets", "please report this model")
            for axis, dim in enumerate(cluster.dims):
                result[dim] = project(kept, axis)
        return result

    def kept_weights(self, subnet: Subnet) -> dict[str, list[Alive | None]]:
        """Which indices of every tensor's dimensions are kept (None: all), as if no block were removed."""
        alive = self.alive(subnet)
        return {name: self.kept_indices(self.analysis.of(node), alive) for name, node in self._tensors.items()}

    def shapes(self, subnet: Subnet) -> Shapes:
        """Predicted shape of every node (a list for several outputs) at batch 1 and nominal sizes."""
        alive = self.alive(subnet)

        def resized(axes: AxesTree) -> Any:
            if isinstance(axes, list):
                return [resized(a) for a in axes]
            if axes is None:
                return None
            kept = self.kept_indices(axes, alive)
            return tuple(n if k is None else int(k.sum()) for n, k in zip(axes.shape, kept, strict=True))

        return {node: resized(axes) for node, axes in self.analysis.axes.items()}

    def kernels(self, subnet: Subnet) -> tuple[Kernel, ...]:
        """Kernels of the sliced Program, without slicing it."""
        found = self.plan.kernels(subnet)
        return found if found is not None else self.regrouped(subnet)

    @cached_property
    def plan(self) -> "Plan":
        """The grouping of the whole graph, recorded once for all subnets."""
        from compactor.ir.plans import Plan

        return Plan(self)

    def regrouped(self, subnet: Subnet) -> tuple[Kernel, ...]:
        """The same kernels, grouped anew: slower, and what a subnet needs that fuses differently."""
        graph, mapping = rewired(self.program.graph, self.replaced(subnet))
        shapes = self.shapes(subnet)
        plain = {new: shapes.get(old) for old, new in mapping.items()}
        return kernels_of(graph, {new: shape for new, shape in plain.items() if shape is not None})

    def cost(self, subnet: Subnet) -> Cost:
        """Cost of the sliced Program, without slicing it: exact."""
        shapes = self.shapes(subnet)
        live = live_nodes(self.program.graph, self.replaced(subnet))
        parameters = size = 0
        for name, node in self._tensors.items():
            if node in live:
                count = int(np.prod(shapes[node], dtype=np.int64))
                size += count * self.program.state[name].element_size()
                parameters += count if name in self.program.trainable else 0
        return Cost(parameters, sum(k.macs for k in self.kernels(subnet)), size)

    # -- finding groups --------------------------------------------------------------------------------------------

    def _find_groups(self) -> list[AxisGroup]:
        components = self.analysis.components
        free = np.ones(int(components.max(initial=-1)) + 1, bool)
        for pin in self.analysis.coupling.pins:
            free[components[pin.ids]] = False
        grouped: dict[tuple[bytes, tuple[int, ...]], list[int]] = {}
        pieces = self._pieces()
        for unit, members in self._signatures(free):
            grouped.setdefault((members.tobytes(), tuple(pieces.get(unit, ()))), []).append(unit)
        attention, hidden = self._marked()
        groups: list[AxisGroup] = []
        for (shared, _), alike in grouped.items():
            if len(alike) > 1:
                places = tuple((n, count) for n, count in np.frombuffer(shared, dtype=np.int64).reshape(-1, 2).tolist())
                groups.append(self._group_of(places, alike, attention, hidden, {g.name for g in groups}))
        return groups

    def _signatures(self, free: NDArray[np.bool_]) -> Iterator[tuple[int, Ids]]:
        """Every free component that a trainable tensor has, with its (number, count) on the axes that hold it.

        In arrays: the objects that lists would need take the garbage collector longer than all else here.
        """
        parts = [np.empty((0, 3), dtype=np.int64)]
        for number, (_, _, ids) in enumerate(self.axes):
            units, counts = np.unique(self.analysis.components[ids], return_counts=True)
            parts.append(np.column_stack([units, np.full(len(units), number), counts])[free[units]])
        table = np.concatenate(parts).astype(np.int64)
        order = np.argsort(table[:, 0], kind="stable")
        table = table[order]
        starts = np.flatnonzero(np.diff(table[:, 0], prepend=-1))
        ends = np.append(starts[1:], len(table))
        trainable = np.array([name in self.program.trainable for name, _, _ in self.axes], dtype=bool)
        for i in np.argsort(order[starts], kind="stable"):
            members = table[starts[i] : ends[i], 1:]
            if trainable[members[:, 0]].any():
                yield int(table[starts[i], 0]), members

    def _pieces(self) -> dict[int, list[int]]:
        """Which pieces of values hold each component; units of other pieces are another group, so none is emptied."""
        found: dict[int, list[int]] = {}
        number = itertools.count()

        def visit(axes: AxesTree) -> None:
            for item in axes if isinstance(axes, list) else [axes]:
                if isinstance(item, list):
                    visit(item)
                for cluster in item.clusters if isinstance(item, Axes) else ():
                    piece = next(number)
                    for unit in np.unique(self.analysis.components[cluster.ids]).tolist():
                        found.setdefault(unit, []).append(piece)

        for node, axes in self.analysis.axes.items():
            if op_name(node) in _CUTS:
                visit(axes)
        return found

    @cached_property
    def axes(self) -> tuple[tuple[str, int, Ids], ...]:
        """(tensor, dimension, ids) of every labelled weight axis, in graph order."""
        found = []
        for name, node in self._tensors.items():
            for cluster in sorted(self.analysis.of(node).clusters, key=lambda c: c.dims):
                found.append((name, cluster.dims[0], cluster.ids))
        return tuple(found)

    def _marked(self) -> tuple[set[int], set[int]]:
        """Components that are attention heads, and those that lie on a residual stream."""
        components = self.analysis.components
        contractions = ("scaled_dot_product_attention", "matmul", "bmm", "einsum")
        heads: set[int] = set()
        for left, _, name in self.analysis.coupling.edges():
            node = self._nodes.get(name)
            if node is not None and op_name(node) in contractions and not _weighs(node):
                heads.update(components[left].tolist())
        for node, axes in self.analysis.axes.items():
            if op_name(node) == "scaled_dot_product_attention" and isinstance(axes, Axes):
                heads.update(components[i] for c in axes.clusters for i in c.ids.ravel().tolist())
        hidden: set[int] = set()
        for block in self.blocks:
            for cluster in self.analysis.of(self._nodes[block.entry]).clusters:
                hidden.update(components[cluster.ids].ravel().tolist())
        return heads, hidden

    def _group_of(
        self,
        members: tuple[tuple[int, int], ...],
        units: list[int],
        attention: set[int],
        hidden: set[int],
        taken: set[str],
    ) -> AxisGroup:
        first, _ = members[0]
        tensor, dim, ids = self.axes[first]
        where = {c: i for i, c in reversed(list(enumerate(self.analysis.components[ids].tolist())))}
        units = sorted(units, key=where.__getitem__)
        places = [(self.axes[n][0], self.axes[n][1]) for n, _ in members]
        if units[0] in attention:
            kind = "heads"
        elif self._convolved(places, stream=units[0] in hidden, attention=bool(attention)):
            kind = "channels"
        else:
            kind = "hidden" if units[0] in hidden else "ffn"
        name = f"{tensor}:{dim}"
        while name in taken:
            name += "+"
        parameters = 0
        for number, count in members:
            owner, d, _ = self.axes[number]
            state = self.program.state[owner]
            if owner in self.program.trainable:
                parameters += count * len(units) * (state.numel() // state.shape[d])
        described = tuple((self.axes[n][0], self.axes[n][1], count) for n, count in members)
        return AxisGroup(name, kind, len(units), described, parameters, tuple(units))

    def _convolved(self, places: list[tuple[str, int]], *, stream: bool, attention: bool) -> bool:
        """Whether an axis is one of channels: convolutions work on it, more than matrices do where there is attention.

        A stream that convolutions only make, as patches are embedded, and that matrices read is none.
        """
        convolutions = [(name, dim) for name, dim in places if name in self._filters]
        matrices = sum(name not in self._filters and self.program.state[name].dim() > 1 for name, _ in places)
        if attention or (stream and not any(dim == 1 or self._filters[name] > 1 for name, dim in convolutions)):
            return len(convolutions) > matrices
        return bool(convolutions)

    @cached_property
    def _filters(self) -> dict[str, int]:
        """Groups of the convolution that reads each filter; one along a sequence with a window of 1 is a matrix."""
        found = {}
        for node in (n for n in self.program.graph.nodes if n.op == "call_function"):
            weight = node.args[1] if op_name(node).startswith("conv") else None
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                name = str(weight.target)
                if tuple(self.program.state[name].shape[2:]) != (1,):
                    found[name] = groups_of(node)
        return found

    def _find_pinned(self) -> list[Pinned]:
        components = self.analysis.components
        reasons: dict[int, tuple[str, str]] = {}
        for pin in self.analysis.coupling.pins:
            for unit in np.unique(components[pin.ids]).tolist():
                reasons.setdefault(unit, (pin.node, pin.reason))
        found = []
        for tensor, dim, ids in self.axes:
            if tensor not in self.program.trainable:
                continue
            pinned = [u for u in components[ids].tolist() if u in reasons]
            if pinned:
                found.append(Pinned(tensor, dim, len(pinned), *reasons[pinned[0]]))
        return found


def _weighs(node: fx.Node) -> bool:
    """Whether a product has a weight, perhaps transposed, for an operand."""
    if op_name(node) == "scaled_dot_product_attention":
        return False
    transposed = [n.all_input_nodes[0] for n in node.all_input_nodes if op_name(n) in _TRANSPOSES]
    return any(n.op == "get_attr" for n in (*node.all_input_nodes, *transposed))


def rewired(graph: fx.Graph, replaced: Mapping[fx.Node, fx.Node]) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A copy of the graph in which some nodes are replaced by earlier ones, dead code gone; and the node map."""
    new = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    live = live_nodes(graph, replaced)
    for node in graph.nodes:
        if node in replaced:
            if replaced[node] in mapping:  # else the block lies within another one that is removed
                mapping[node] = mapping[replaced[node]]
        elif node in live or node.op == "placeholder":
            mapping[node] = new.node_copy(node, lambda n: mapping[n])
            mapping[node].meta = {}
    return new, {old: copy for old, copy in mapping.items() if old not in replaced}


def space_of(program: Program) -> SearchSpace:
    """The SearchSpace of a Program, analysed once."""
    found = program.__dict__.get("_space")
    if found is None:
        found = SearchSpace(program)
        object.__setattr__(program, "_space", found)
    return found
