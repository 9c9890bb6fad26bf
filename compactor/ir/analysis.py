"""Axis analysis: walks a graph once and lets one small rule per op relate its axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, fx

from compactor.ir.axes import Axes, Cluster, Coupling, Ids, Shape, at, invariant
from compactor.ir.graphs import op_name
from compactor.ir.program import Program

AxesTree = Axes | None | list["AxesTree"]


class Analysis:
    """The labels of every value of a Program, and the coupling between them.

    Attributes:
        axes: labels of every node (a list for nodes with several outputs, None for plain numbers).
        coupling: ties and pins.
        components: unit of every id, after solving.
    """

    def __init__(self, program: Program) -> None:
        from compactor.ir.rules import find

        self.program = program
        self.coupling = Coupling()
        self.axes: dict[fx.Node, AxesTree] = {}
        self.unruled: dict[str, list[str]] = {}
        for node in program.graph.nodes:
            if node.op == "get_attr":
                self.axes[node] = self._labelled(program.values[node])
            elif node.op == "placeholder":
                self.axes[node] = Axes(tuple(program.values[node].shape))
            elif node.op == "output":
                self._pin_outputs(node)
            elif isinstance(program.values[node], (int, float)):
                self.axes[node] = None
            else:
                rule = find(node)
                self.axes[node] = self._plain(rule(node, self) if rule is not None else self._unruled(node), node)
        self.components = self.coupling.solve()

    # -- what rules use --------------------------------------------------------------------------------------------

    def of(self, node: Any) -> Axes:
        """Labels of a tensor argument; a number is a tensor without dimensions."""
        if not isinstance(node, fx.Node):
            return Axes(())
        axes = self.axes[node]
        return axes if isinstance(axes, Axes) else Axes(())

    def shape(self, node: fx.Node) -> Shape:
        """Nominal shape of a value."""
        return tuple(self.program.values[node].shape)

    def fix(self, axes: Axes, dim: int, node: fx.Node, reason: str) -> Axes:
        """Give up a dimension: the op needs all of it.

        Alone in its cluster, its ids are pinned. Labelled together with others, the others stay free: what is kept of
        them no longer depends on this one.
        """
        dim %= max(len(axes.shape), 1)
        cluster = axes.cluster(dim)
        if cluster is None:
            return axes
        if len(cluster.dims) == 1:
            self.coupling.pin(cluster.ids, node.name, reason)
            return Axes(axes.shape, axes.without(cluster))
        axis = cluster.dims.index(dim)
        first = at(cluster.ids, 0, axis)
        self.coupling.tie(cluster.ids, np.expand_dims(first, axis), node.name)
        rest = Cluster(tuple(d for d in cluster.dims if d != dim), first)
        return Axes(axes.shape, (*axes.without(cluster), rest))

    def alone(self, axes: Axes, dim: int, node: fx.Node, reason: str) -> Axes:
        """Stop a dimension from sharing its cluster: the outer one of a split axis stays free, inner ones are fixed."""
        cluster = axes.cluster(dim)
        if cluster is None or len(cluster.dims) == 1:
            return axes
        outer = cluster.dims[0]
        for inner in cluster.dims[1:] if dim % len(axes.shape) == outer else (dim,):
            axes = self.fix(axes, inner, node, reason)
        return axes

    def tie(self, axes: Axes, dim: int, other: Axes, other_dim: int, node: fx.Node, reason: str) -> None:
        """Two single dimensions of equal size move together; a fixed one pins the other."""
        a, b = axes.cluster(dim), other.cluster(other_dim)
        if a is None and b is not None:
            self.fix(other, other_dim, node, reason)
        elif b is None and a is not None:
            self.fix(axes, dim, node, reason)
        elif a is not None and b is not None:
            self.coupling.tie(a.ids, b.ids, node.name)

    def merge(self, operands: Sequence[Axes], shape: Shape, node: fx.Node) -> Axes:
        """Labels of a result whose dimensions are those of its operands, with broadcasting."""
        rank = len(shape)
        aligned = []
        for axes in operands:
            shift = rank - len(axes.shape)
            mapping = {d: d + shift for d in range(len(axes.shape))}
            aligned.append(axes.remap(mapping, (1,) * shift + axes.shape))
        while (conflict := _conflict(aligned, shape)) is not None:
            dim, reason = conflict
            aligned = [self.fix(a, dim, node, reason) for a in aligned]
        clusters: list[Cluster] = []
        for group in _groups(aligned):
            members = [c for a in aligned for c in a.clusters if set(c.dims) <= group]
            base = max(members, key=lambda c: len(c.dims))
            for other in members:
                if other is not base:
                    self.coupling.tie(base.ids, _spread(other, base.dims), node.name)
            clusters.append(base)
        return Axes(shape, tuple(clusters))

    def contract(
        self, operands: Sequence[Axes], letters: Sequence[str], result: str, node: fx.Node, reason: str = ""
    ) -> Axes:
        """Labels of an Einstein sum: equal letters are tied, letters missing from ``result`` are summed over."""
        order = "".join(dict.fromkeys("".join(letters)))
        sizes: dict[str, int] = {}
        for axes, names in zip(operands, letters, strict=True):
            for d, letter in enumerate(names):
                sizes[letter] = max(sizes.get(letter, 1), axes.shape[d])
        embedded = []
        for axes, names in zip(operands, letters, strict=True):
            for d in (d for d, letter in enumerate(names) if letter not in result):
                cluster = axes.cluster(d)
                if cluster is not None and len(cluster.dims) > 1:
                    axes = self.fix(axes, d, node, reason or "summed over within a joint axis")
            mapping = {d: order.index(letter) for d, letter in enumerate(names)}
            place = {letter: axes.shape[d] for d, letter in enumerate(names)}
            embedded.append(axes.remap(mapping, tuple(place.get(letter, 1) for letter in order)))
        merged = self.merge(embedded, tuple(sizes[letter] for letter in order), node)
        kept = tuple(c for c in merged.clusters if all(order[d] in result for d in c.dims))
        shape = tuple(sizes[letter] for letter in result)
        mapping = {order.index(letter): d for d, letter in enumerate(result)}
        return Axes(merged.shape, kept).remap(mapping, shape)

    def reshape(self, axes: Axes, shape: Shape, node: fx.Node) -> Axes:
        """Labels after a view: dimensions are matched in runs of equal size, each run is relabelled as one."""
        done: list[Cluster] = []
        straight: dict[int, int] = {}
        runs = list(_runs(axes.shape, shape))
        for inside, outside in runs:
            if len(inside) != 1 or len(outside) != 1:
                axes = self._confine(axes, set(inside), node)
        for inside, outside in runs:
            if len(inside) == 1 and len(outside) == 1:
                straight[inside[0]] = outside[0]
                continue
            cluster = next((c for c in axes.clusters if set(c.dims) <= set(inside)), None)
            if cluster is None:
                continue
            array = np.broadcast_to(_spread(cluster, inside), tuple(axes.shape[d] for d in inside))
            array = array.reshape(tuple(shape[d] for d in outside))
            dims = list(outside)
            for axis in reversed(range(array.ndim)):
                if invariant(array, axis):
                    array = at(array, 0, axis)
                    del dims[axis]
            if dims:
                done.append(Cluster(tuple(dims), array))
                if len(dims) > 1:
                    self.coupling.product(array, node.name)
            axes = Axes(axes.shape, axes.without(cluster))
        return Axes(shape, (*axes.remap(straight, shape).clusters, *done))

    # -- internals -------------------------------------------------------------------------------------------------

    def _labelled(self, value: Tensor) -> Axes:
        shape = tuple(value.shape)
        return Axes(shape, tuple(Cluster((d,), self.coupling.fresh(n)) for d, n in enumerate(shape) if n > 1))

    def _plain(self, axes: AxesTree, node: fx.Node) -> AxesTree:
        """Labels without dimensions of size one: what is down to a single index must keep it."""
        if isinstance(axes, list):
            return [self._plain(a, node) for a in axes]
        for d in range(len(axes.shape)) if axes is not None else ():
            cluster = axes.cluster(d) if axes is not None and axes.shape[d] == 1 else None
            if axes is not None and cluster is not None:
                axes = self.fix(axes, d, node, "a single index of it is used")
        return axes

    def _confine(self, axes: Axes, inside: set[int], node: fx.Node) -> Axes:
        """Make at most one cluster touch these dimensions, and that one nothing else."""
        for cluster in axes.clusters:
            here = [d for d in cluster.dims if d in inside]
            if here and len(here) < len(cluster.dims):
                keep_here = cluster.dims[0] in inside
                for d in cluster.dims:
                    if (d in inside) != keep_here:
                        axes = self.fix(axes, d, node, "a view merges it with an unrelated axis")
        touching = [c for c in axes.clusters if set(c.dims) <= inside]
        for cluster in sorted(touching, key=lambda c: (self.coupling.is_copies(c.ids), -c.ids.size))[1:]:
            for d in cluster.dims:
                axes = self.fix(axes, d, node, "a view merges two independent axes")
        return axes

    def _pin_outputs(self, node: fx.Node) -> None:
        for value in node.all_input_nodes:
            axes = self.of(value)
            for cluster in axes.clusters:
                self.coupling.pin(cluster.ids, value.name, "it is an axis of the model's output")

    def _unruled(self, node: fx.Node) -> AxesTree:
        from compactor.ir.rules import home

        name = op_name(node)
        self.unruled.setdefault(name, []).append(node.name)
        for source in node.all_input_nodes:
            self.pin_all(self.axes.get(source), node, f"no rule for the op {name}; it would live in {home(name)}")
        return fixed(self.program.values[node])

    def pin_all(self, axes: AxesTree, node: fx.Node, reason: str) -> None:
        """Pin every id of a value."""
        for item in axes if isinstance(axes, list) else [axes]:
            if isinstance(item, list):
                self.pin_all(item, node, reason)
            elif item is not None:
                for cluster in item.clusters:
                    self.coupling.pin(cluster.ids, node.name, reason)


def fixed(value: Any) -> AxesTree:
    """Labels of a value with no prunable dimension."""
    if isinstance(value, Tensor):
        return Axes(tuple(value.shape))
    if isinstance(value, (tuple, list)):
        return [fixed(v) for v in value]
    return None


def _spread(cluster: Cluster, dims: Sequence[int]) -> Ids:
    """Ids as an array over ``dims`` (size 1 where the cluster has no such dimension)."""
    present = [d for d in dims if d in cluster.dims]
    array = cluster.ids.transpose([cluster.dims.index(d) for d in present])
    sizes = iter(array.shape)
    return array.reshape([next(sizes) if d in present else 1 for d in dims])


def _groups(operands: Sequence[Axes]) -> list[set[int]]:
    """Dimensions that are labelled together by at least one operand, joined."""
    groups: list[set[int]] = []
    for axes in operands:
        for cluster in axes.clusters:
            touching = [g for g in groups if g & set(cluster.dims)]
            groups = [g for g in groups if g not in touching]
            groups.append(set(cluster.dims).union(*touching))
    return groups


def _conflict(operands: Sequence[Axes], shape: Shape) -> tuple[int, str] | None:
    """A dimension that must be given up before the operands can be tied, and why."""
    for dim, size in enumerate(shape):
        sized = [a for a in operands if a.shape[dim] != 1]
        labelled = [a for a in sized if a.cluster(dim) is not None]
        if size != 1 and labelled and len(labelled) < len(sized):
            return dim, "combined with a fixed axis"
    for group in _groups(operands):
        inside = [[c for c in a.clusters if set(c.dims) <= group] for a in operands]
        base = next((c for clusters in inside for c in clusters if set(c.dims) == group), None)
        if base is None or any(len(clusters) > 1 for clusters in inside):
            return max(group), "combined with an axis that is split differently"
        for cluster in (c for clusters in inside for c in clusters):
            if base.dims[0] not in cluster.dims:
                # Rotary tables meet (heads, width) along the width: the heads are what should stay free.
                return cluster.dims[-1], "combined with values that are the same for every outer unit"
    return None


def _runs(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Minimal runs of dimensions with equal products; dimensions of size 1 belong to none."""
    inside = [d for d, n in enumerate(old) if n != 1]
    outside = [d for d, n in enumerate(new) if n != 1]
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(inside):
        a, b = [inside[i]], [outside[j]]
        left, right = old[inside[i]], new[outside[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left *= old[inside[i]]
                a.append(inside[i])
                i += 1
            else:
                right *= new[outside[j]]
                b.append(outside[j])
                j += 1
        runs.append((a, b))
    return runs
