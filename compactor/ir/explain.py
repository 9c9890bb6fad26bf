"""Why an axis is in its group, or pinned: the ops that lead from one weight axis to another."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from compactor.errors import InputError
from compactor.ir.axes import Pin
from compactor.ir.graphs import op_name
from compactor.ir.space import AxisGroup, SearchSpace


@dataclass(frozen=True)
class Step:
    """One tie: ``node``, a call of ``op``, makes the axis one with ``axis`` (``tensor:dim``; empty where it pins)."""

    node: str
    op: str
    axis: str


@dataclass(frozen=True)
class Reason:
    """What holds some indices of an axis.

    Attributes:
        indices: how many of them.
        group: group they belong to, or None where they must stay.
        because: why they must stay, empty in a group.
        chains: one chain of ties to every other axis of the group, or one to the op that pins.
    """

    indices: int
    group: AxisGroup | None
    because: str
    chains: tuple[tuple[Step, ...], ...]


def why(space: SearchSpace, tensor: str, dim: int) -> tuple[Reason, ...]:
    """The reasons for one weight axis, those of most indices first. Raises `InputError` for an axis that is none."""
    names = dict.fromkeys(name for name, _, _ in space.axes)
    if tensor not in names:
        close = get_close_matches(tensor, names, n=3, cutoff=0.4)
        raise InputError(f"no weight {tensor!r} with axes", f"did you mean {', '.join(close or list(names)[:3])}?")
    found = next((ids for name, d, ids in space.axes if (name, d) == (tensor, dim)), None)
    if found is None:
        shape = tuple(space.program.state[tensor].shape)
        raise InputError(f"axis {dim} of {tensor} {shape} cannot be chosen from", "name an axis longer than 1")
    tree = _Ties(space)
    reasons: dict[str, tuple[Reason, int]] = {}
    for identity in found.tolist():
        key, make = tree.fate(identity)
        reason, count = reasons[key] if key in reasons else (make(), 0)
        reasons[key] = (reason, count + 1)
    return tuple(
        Reason(count, r.group, r.because, r.chains) for r, count in sorted(reasons.values(), key=lambda item: -item[1])
    )


class _Ties:
    """The ties of a space as a graph over ids."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.components = space.analysis.components
        self.edges = list(space.analysis.coupling.edges())
        self.owner = {i: f"{name}:{dim}" for name, dim, ids in space.axes for i in ids.tolist()}
        self.ops = {n.name: op_name(n) for n in space.program.graph.nodes}
        self.group = {unit: g for g in space.groups for unit in g.units}
        self.pins: dict[int, Pin] = {}  # by unit, the first
        for pin in space.analysis.coupling.pins:
            for unit in np.unique(self.components[pin.ids]).tolist():
                self.pins.setdefault(unit, pin)

    def fate(self, identity: int) -> tuple[str, Callable[[], Reason]]:
        """A key that indices held alike share, and the reason."""
        unit = int(self.components[identity])
        group = self.group.get(unit)
        if group is not None:
            return group.name, lambda: Reason(0, group, "", self._to_members(identity, group))
        if unit in self.pins:
            pin = self.pins[unit]
            return f"{pin.node} {pin.reason}", lambda: Reason(0, None, pin.reason, (self._to_pin(identity, pin),))
        return "single", lambda: Reason(0, None, "nothing else of it could be kept: its unit is the only one", ())

    def _to_members(self, identity: int, group: AxisGroup) -> tuple[tuple[Step, ...], ...]:
        wanted = {f"{tensor}:{dim}" for tensor, dim, _ in group.members} - {self.owner[identity]}
        chains: dict[str, tuple[Step, ...]] = {}
        for chain, end in self._search(identity, lambda i: self.owner.get(i) in wanted, every=True):
            chains.setdefault(self.owner[end], chain)
        return tuple(chains.values())

    def _to_pin(self, identity: int, pin: Pin) -> tuple[Step, ...]:
        ids = set(pin.ids.tolist())
        chain, _ = self._search(identity, ids.__contains__)[0]
        return (*chain, Step(pin.node, self.ops.get(pin.node, ""), ""))

    def _search(
        self, start: int, wanted: Callable[[int], bool], *, every: bool = False
    ) -> list[tuple[tuple[Step, ...], int]]:
        """Shortest chains of ties from an id to the first wanted one, or to every one."""
        neighbours = self._neighbours(int(self.components[start]))
        came: dict[int, tuple[int, str] | None] = {start: None}
        queue, found = deque([start]), []
        while queue:
            current = queue.popleft()
            if wanted(current):
                found.append((self._chain(current, came), current))
                if not every:
                    break
            for following, node in neighbours.get(current, ()):
                if following not in came:
                    came[following] = (current, node)
                    queue.append(following)
        return found

    def _neighbours(self, component: int) -> dict[int, list[tuple[int, str]]]:
        result: dict[int, list[tuple[int, str]]] = {}
        for left, right, node in self.edges:
            here = self.components[left] == component
            for a, b in zip(left[here].tolist(), right[here].tolist(), strict=True):
                result.setdefault(a, []).append((b, node))
                result.setdefault(b, []).append((a, node))
        return result

    def _chain(self, end: int, came: dict[int, tuple[int, str] | None]) -> tuple[Step, ...]:
        steps: list[Step] = []
        while (link := came[end]) is not None:
            axis = self.owner.get(end, "a size given in the graph")
            if not (steps and steps[-1].axis == axis and steps[-1].node == link[1]):
                steps.append(Step(link[1], self.ops.get(link[1], ""), axis))
            end = link[0]
        return tuple(reversed(steps))


def parse(space: SearchSpace, text: str) -> list[tuple[str, int]]:
    """``PARAM`` or ``PARAM:AXIS`` as (tensor, dimension) pairs. Raises `InputError`."""
    tensor, _, axis = text.rpartition(":") if ":" in text else (text, "", "")
    if axis and not axis.isdigit():
        raise InputError(f"{text!r} names no axis", "write PARAM:AXIS with a number, for example head.weight:1")
    if axis:
        return [(tensor, int(axis))]
    return [(name, dim) for name, dim, _ in space.axes if name == tensor] or [(tensor, 0)]
