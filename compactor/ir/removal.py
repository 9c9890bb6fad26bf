"""Which kernels are left when blocks are removed, told from the grouping of the whole graph.

Removing a block only takes kernels away, unless a kernel next to it could then fuse with what follows. Whether that
cannot be is checked for every choice, by what stopped each kernel from growing; where it may be, nothing is told.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import fx

from compactor.ir.grouping import Grouping
from compactor.ir.kernel_ops import FREE, POINTWISE, is_zero_pad

Ends = tuple[fx.Node | None, fx.Node | None]
"""Exit and entry of a block; None for a node that no output needs."""


def removable(grouping: Grouping, blocks: Mapping[str, Ends]) -> dict[str, Ends]:
    """The blocks that begin and end between kernels, at values of one shape, which nothing looks past.

    That is: no exit or entry is inside of a kernel or a view, or a transposition or padding or close before one (what
    those cost depends on their neighbours). None where a kernel reads two values that removals could make one.
    """
    tails = {g.members[-1] for g in grouping.groups}
    unfit = {n for g in grouping.groups for n in g.members} - tails
    unfit.update(n for n in _dependent(grouping))
    unfit.update(n for p in grouping.permutes for n in _behind(grouping, p))
    fit: dict[str, Ends] = {
        name: (leave, enter)
        for name, (leave, enter) in blocks.items()
        if leave in tails and not unfit & {leave, enter} and all(grouping.root.get(n) is n for n in (leave, enter) if n)
        and enter is not None and _shape(grouping, leave) == _shape(grouping, enter)
    }  # fmt: skip
    stream = _streams(list(fit.values()))
    for group in grouping.groups:
        read = {grouping.root[n] for m in group.members for n in m.all_input_nodes if n in grouping.root}
        met = [stream[n] for n in read.difference(group.members) if n in stream]
        if len(met) != len(set(met)):
            return {}
    return fit


class Removal:
    """The kernels of a graph, by number, as the choice of blocks leaves them."""

    def __init__(self, grouping: Grouping, blocks: Mapping[str, Ends]) -> None:
        self._grouping = grouping
        self._number = {n: i for i, g in enumerate(grouping.groups) for n in g.members}
        self._count = len(grouping.groups)  # as a number: what is always there, inputs and output
        self._fed: dict[fx.Node, frozenset[int]] = {}
        graph = grouping.graph
        self._sources = [sorted(self._feeding(g.members) - {i}) for i, g in enumerate(grouping.groups)]
        self._outputs = sorted(self._feeding([n for n in graph.nodes if n.op == "output"]))
        fit = removable(grouping, blocks)
        self._ends = {b: (self._of(leave), self._of(enter)) for b, (leave, enter) in fit.items()}
        self._closing = [self._closers(g.members[-1]) for g in grouping.groups]
        self._watched = [self._watch(g.members[-1]) for g in grouping.groups]
        self._users = [u for n in _dependent(grouping) if len(u := set(map(self._of, _users(grouping, n)))) > 1]

    def left(self, dropped: Sequence[str]) -> list[int] | None:
        """The kernels that are left without these blocks, or None where they may not be those of the whole graph."""
        if any(name not in self._ends for name in dropped):
            return None
        replaced = dict(self._ends[name] for name in dropped)
        live = self._live(replaced)
        inherited: dict[int, list[int]] = {}
        for leave in replaced:
            inherited.setdefault(_resolved(leave, replaced), []).append(leave)
        if any(len({live[u] for u in users}) > 1 for users in self._users):
            return None
        found = [i for i in range(self._count) if live[i]]
        for i in found:
            closing = any(live[c] for c in self._closing[i]) or any(
                live[c] for leave in inherited.get(i, ()) for c in self._closing[leave]
            )
            if not closing and not all(v not in inherited and all(live[r] for r in rs) for v, rs in self._watched[i]):
                return None
        return found

    def _live(self, replaced: dict[int, int]) -> list[bool]:
        live = [False] * self._count + [True]
        stack = list(self._outputs)
        while stack:
            number = _resolved(stack.pop(), replaced)
            if not live[number]:
                live[number] = True
                stack += self._sources[number]
        return live

    def _of(self, node: fx.Node | None) -> int:
        return self._count if node is None else self._number.get(node, self._count)

    def _feeding(self, nodes: Sequence[fx.Node]) -> frozenset[int]:
        """Kernels that the inputs of these nodes come from, through views and sizes."""
        found: set[int] = set()
        for node in (s for n in nodes for s in n.all_input_nodes):
            if node in self._number:
                found.add(self._number[node])
            else:
                if node not in self._fed:
                    self._fed[node] = self._feeding([node])
                found |= self._fed[node]
        return frozenset(found)

    def _closers(self, tail: fx.Node) -> list[int]:
        """What reads a value and cannot join its kernel: as long as one is there, the kernel ends with the value."""
        grouping = self._grouping
        readers = grouping.readers.get(tail, ())
        return [self._of(r) for r in readers if r.op == "output" or not grouping.fusable(r)]

    def _watch(self, tail: fx.Node) -> list[tuple[int, list[int]]]:
        """All that was looked at behind a kernel: each value's kernel, with the kernels that read the value."""
        seen = [tail, *self._grouping.explored.get(tail, ())]
        return [(self._of(n), [self._of(r) for r in self._grouping.readers.get(n, ())]) for n in seen]


def _resolved(number: int, replaced: dict[int, int]) -> int:
    while number in replaced:
        number = replaced[number]
    return number


def _shape(grouping: Grouping, node: fx.Node | None) -> Any:
    """The shape in a form that tells sizes from the same tape apart."""
    shape = grouping.shapes.get(node) if node is not None else None
    return None if shape is None else [(int(n), getattr(n, "ref", None)) for n in shape]


def _dependent(grouping: Grouping) -> list[fx.Node]:
    """Calls whose class depends on their neighbours."""
    return [*grouping.permutes, *(n for n in grouping.classes if n.op == "call_function" and is_zero_pad(n))]


def _behind(grouping: Grouping, node: fx.Node) -> Iterator[fx.Node]:
    """The nodes before, along chains of views and pointwise ops."""
    while True:
        live = [n for n in node.all_input_nodes if n in grouping.root]
        if not live:
            return
        node = live[0]
        yield node
        if grouping.classes.get(node) not in (FREE, POINTWISE):
            return


def _users(grouping: Grouping, node: fx.Node) -> Iterator[fx.Node]:
    """The calls that use a value, behind views and transpositions."""
    for user in node.users:
        if user in grouping.classes:
            if grouping.root[user] is user and user not in grouping.permutes:
                yield user
            else:
                yield from _users(grouping, user)


def _streams(blocks: Sequence[Ends]) -> dict[fx.Node | None, int]:
    """A number for each set of values that removals can make one."""
    stream: dict[fx.Node | None, int] = {}
    for number, (leave, enter) in enumerate(blocks):
        old = {stream[n] for n in (leave, enter) if n in stream}
        stream.update({n: number for n, s in stream.items() if s in old})
        stream[leave] = stream[enter] = number
    return stream
