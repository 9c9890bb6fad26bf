"""Units that repeat: students wider than their teacher that compute the same (Net2WiderNet, Chen et al., ICLR 2016).

Whatever makes a repeated axis copies its slices. What sums over the axis with a stored weight has that weight shared
out among the copies. Everything else that sums is named, with the reason, where copies change its result.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from compactor.ir.axes import Axes, Ids, line, runs, varying
from compactor.ir.blocks import live_nodes
from compactor.ir.graphs import op_name
from compactor.ir.shapes import Shape
from compactor.ir.subnet import Subnet

if TYPE_CHECKING:
    from compactor.ir.analysis import AxesTree
    from compactor.ir.space import SearchSpace

_TRANSPOSES = ("t", "numpy_T", "transpose", "permute", "mT", "adjoint")
_SPREAD = 0.5
"""Copies get shares from (1 - this) to (1 + this), before these are scaled to sum to one."""


@dataclass(frozen=True)
class Change:
    """An op, by its node, that computes something else where units repeat, and why."""

    node: str
    reason: str


class Repeats:
    """What the repeated units of a Subnet do to the ops of the graph; rules of ops that sum report to it.

    Attributes:
        changes: the ops whose results differ from those without repeats, in graph order.
    """

    def __init__(self, space: "SearchSpace", subnet: Subnet) -> None:
        from compactor.ir.rules import find_summing

        self._space, self._copies = space, space.copies(subnet)
        self._changes: dict[fx.Node, str] = {}
        self._summed: dict[tuple[fx.Node, int], set[fx.Node]] = {}
        self._live: set[fx.Node] = set()
        if (self._copies > 1).any():
            self._live = set(live_nodes(space.program.graph, space.replaced(subnet)))
            for node in (n for n in space.program.graph.nodes if n in self._live and n.op == "call_function"):
                rule = find_summing(node)
                if rule is not None:
                    rule(node, self)
        self._divided = self._settle()
        order = {node: i for i, node in enumerate(space.program.graph.nodes)}
        found = sorted(self._changes.items(), key=lambda item: order[item[0]])
        self.changes = tuple(Change(node.name, reason) for node, reason in found)

    # -- what rules use --------------------------------------------------------------------------------------------

    def shape(self, node: Any) -> Shape:
        """Shape of a value before."""
        return self._space.analysis.shape(node)

    def counts(self, value: Any, dim: int) -> Ids | None:
        """How often each index of a dimension is kept; None where none is kept twice."""
        axes = self._space.analysis.of(value)
        counts = self._space.counts(axes, self._copies)[dim] if axes.shape else None
        return counts if counts is not None and counts.max(initial=0) > 1 else None

    def contracted(self, node: fx.Node, operands: Sequence[tuple[Any, int]]) -> None:
        """The op sums over these dimensions, each of one operand, taken together."""
        repeated = [(n, dim) for n, dim in operands if self.counts(n, dim) is not None]
        weight = next((found for n, dim in repeated if (found := self._stored(n, dim)) is not None), None)
        if weight is not None:
            self._summed.setdefault(weight, set()).add(node)
        elif repeated:
            self._changes[node] = "it sums over repeated units, and has no stored weight there to share out"

    def averaged(self, node: fx.Node, value: Any, dims: Iterable[int]) -> None:
        """The op weighs all indices of these dimensions alike."""
        for dim in dims:
            counts = self.counts(value, dim)
            if counts is not None and len(set(counts[counts > 0].tolist())) > 1:
                self._changes[node] = "its mean weighs units by how often they repeat, which is not equally often"

    # -- weights ---------------------------------------------------------------------------------------------------

    def share_out(
        self, node: fx.Node, tensor: Tensor, indices: Sequence[Ids | None], generator: torch.Generator
    ) -> Tensor:
        """A sliced tensor of which copies, along the dimensions that are summed over, add up to what was one slice.

        Shares of a copy differ from output to output. Equal ones would give copies equal gradients, and training could
        not tell them apart (LEMON, Wang et al., ICLR 2024). ``indices``: what is kept, per dimension.
        """
        spread = _SPREAD
        for dim in self._divided.get(node, ()):
            kept = torch.from_numpy(indices[dim])
            parts = 1 + spread * (2 * torch.rand(tensor.shape, generator=generator) - 1)
            spread = 0.0  # products of uneven shares, along several dimensions, would not add up
            shape = [self.shape(node)[d] if d == dim else n for d, n in enumerate(tensor.shape)]
            whole = torch.zeros(shape).index_add_(dim, kept, parts)
            tensor = (tensor * (parts / whole.index_select(dim, kept))).to(tensor.dtype)
        return tensor

    def _stored(self, value: Any, dim: int) -> tuple[fx.Node, int] | None:
        """The tensor, and its dimension, that an operand is, perhaps transposed."""
        analysis = self._space.analysis
        wanted = analysis.of(value).cluster(dim)
        while op_name(value) in _TRANSPOSES:
            value = value.all_input_nodes[0]
        if wanted is None or value.op != "get_attr" or not analysis.program.state[value.target].is_floating_point():
            return None
        own = (c for c in analysis.of(value).clusters if np.array_equal(c.ids, wanted.ids))
        return next(((value, c.dims[0]) for c in own), None)

    def _readers(self, node: fx.Node) -> Iterator[fx.Node]:
        """The ops that use a tensor, perhaps transposed."""
        for user in (u for u in node.users if u in self._live):
            if op_name(user) in _TRANSPOSES:
                yield from self._readers(user)
            else:
                yield user

    def _settle(self) -> dict[fx.Node, list[int]]:
        """The dimensions of each tensor that are shared out: all that use it must sum over them."""
        divided: dict[fx.Node, list[int]] = {}
        for (weight, dim), users in self._summed.items():
            others = [reader for reader in self._readers(weight) if reader not in users]
            if not others:
                divided.setdefault(weight, []).append(dim)
            for user in users if others else ():
                self._changes[user] = f"its weight {weight.target} cannot be shared out: {others[0].name} uses it too"
        return divided


def unrepeatable(space: "SearchSpace") -> dict[str, str]:
    """Why units of some groups must not repeat, by group name: it would not be told where in a value copies go."""
    owner = np.full(int(space.analysis.components.max(initial=-1)) + 1, -1)
    for number, group in enumerate(space.groups):
        owner[list(group.units)] = number
    found: dict[int, str] = {}
    for node, axes in space.analysis.axes.items():
        for units in _labels(axes, space):
            for number, reason in _ambiguous(units, owner[units]):
                found.setdefault(number, f"{reason} at {node.name}")
    return {space.groups[number].name: reason for number, reason in sorted(found.items())}


def _labels(axes: "AxesTree", space: "SearchSpace") -> Iterator[Ids]:
    for item in axes if isinstance(axes, list) else [axes]:
        if isinstance(item, list):
            yield from _labels(item, space)
        elif isinstance(item, Axes):
            yield from (space.analysis.components[c.ids] for c in item.clusters)


def _ambiguous(units: Ids, groups: Ids) -> Iterator[tuple[int, str]]:
    """The groups (by number; -1: none) among some labels whose copies have no place of their own, and why."""
    there = np.unique(groups[groups >= 0]).tolist()
    along = varying(np.where(groups < 0, -1, units)) if units.ndim > 1 else [0]
    if len(along) != 1:
        yield from ((number, "it has a single unit of several dimensions") for number in there)
        return
    owners = line(groups, along[0])
    for number in there:
        lengths = {len(run) for run in runs(line(units, along[0])) if owners[run[0]] == number}
        if len(lengths) > 1:  # two pieces that begin and end with one unit have become one run
            yield number, "its units lie together in runs of different lengths"
