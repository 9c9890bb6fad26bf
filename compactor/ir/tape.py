"""Sizes that write down what is computed from them, so that the computation can be repeated for other sizes.

A function of integers runs once on `Size`s. The tape then holds its sums, products and quotients, and every comparison
with its outcome: a repetition with other sizes is right as long as all comparisons come out as they did.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64]
Outcomes = NDArray[np.bool_]
Step = tuple[str, int, int]
_OPS = {"add": np.add, "mul": np.multiply, "div": np.floor_divide}
_SMOOTH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"add": torch.add, "mul": torch.mul, "div": torch.div}


class Tape:
    """What was done with the sizes of one run: steps on earlier values, and comparisons."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.guards: dict[Step, bool] = {}
        self._known: dict[Step, int] = {}

    def variable(self, number: int, value: int) -> "Size":
        """The size that variable ``number`` stands for, ``value`` in this run."""
        return Size.of(value, self, self._add(("var", number, 0)))

    def ref(self, value: int) -> int:
        """Where a size or a constant stands on the tape."""
        return value.ref if isinstance(value, Size) else self._add(("const", int(value), 0))

    def apply(self, op: str, a: int, b: int, result: int) -> int:
        """A step, unless the result is an operand or a constant."""
        if (op == "add" and 0 in (_constant(a), _constant(b))) or (op == "mul" and 1 in (_constant(a), _constant(b))):
            return a if isinstance(a, Size) else b
        if op == "div" and _constant(b) == 1:
            return a
        left, right = self.ref(a), self.ref(b)
        if op != "div":
            left, right = sorted((left, right))
        return Size.of(result, self, self._add((op, left, right)))

    def compared(self, op: str, a: int, b: int, outcome: bool) -> bool:
        """A comparison, written down unless it is one of a value with itself."""
        left, right = self.ref(a), self.ref(b)
        if left != right:
            self.guards[(op, left, right)] = outcome
        return outcome

    def _add(self, step: Step) -> int:
        if step not in self._known:
            self._known[step] = len(self.steps)
            self.steps.append(step)
        return self._known[step]


class Size(int):
    """An integer on a tape."""

    tape: Tape
    ref: int

    @classmethod
    def of(cls, value: int, tape: Tape, ref: int) -> Self:
        """The value at a place on the tape."""
        size = cls(value)
        size.tape, size.ref = tape, ref
        return size

    __hash__ = int.__hash__

    def __add__(self, other: Any) -> int:
        return self.tape.apply("add", self, other, int(self) + int(other))

    def __mul__(self, other: Any) -> int:
        return self.tape.apply("mul", self, other, int(self) * int(other))

    def __floordiv__(self, other: Any) -> int:
        return self.tape.apply("div", self, other, int(self) // int(other))

    def __rfloordiv__(self, other: Any) -> int:
        return self.tape.apply("div", other, self, int(other) // int(self))

    __radd__, __rmul__ = __add__, __mul__

    def _untraced(self, *_: Any) -> Any:
        raise TypeError("a size on a tape can be added, multiplied, floor-divided and compared only")

    __sub__ = __rsub__ = __mod__ = __rmod__ = __truediv__ = __rtruediv__ = __pow__ = __neg__ = _untraced

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and self.tape.compared("eq", self, other, int(self) == int(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: int) -> bool:
        return self.tape.compared("lt", self, other, int(self) < int(other))

    def __gt__(self, other: int) -> bool:
        return self.tape.compared("lt", other, self, int(other) < int(self))

    def __le__(self, other: int) -> bool:
        return not self > other

    def __ge__(self, other: int) -> bool:
        return not self < other

    def __bool__(self) -> bool:
        return not self.tape.compared("eq", self, 0, int(self) == 0)


class Replay:
    """A tape with its wanted results, ready to repeat: steps of one kind that wait for the same ones run at once."""

    def __init__(self, tape: Tape, wanted: Sequence[Sequence[int]]) -> None:
        refs = [[tape.ref(v) for v in row] for row in wanted]
        depth: list[int] = []
        for op, a, b in tape.steps:
            depth.append(1 + max(depth[a], depth[b]) if op in _OPS else 0)
        levels: dict[tuple[int, str], list[int]] = {}
        for i, (op, _, _) in enumerate(tape.steps):
            levels.setdefault((depth[i], op), []).append(i)
        order = [i for level in sorted(levels) for i in levels[level]]
        place = np.empty(len(order), np.intp)
        place[order] = np.arange(len(order))
        self._start = np.zeros(len(order), np.int64)
        self._variables = np.array([], np.intp), np.array([], np.intp)
        self._levels = []
        for level in sorted(levels):
            members = levels[level]
            left, right = (np.array([tape.steps[i][side] for i in members], np.intp) for side in (1, 2))
            if level[1] == "const":
                self._start[place[members]] = left
            elif level[1] == "var":
                self._variables = place[members], left
            else:
                first = int(place[members[0]])
                where = slice(first, first + len(members))
                self._levels.append((level[1], where, place[left], place[right]))
        self._wanted = place[np.array(refs, np.intp).reshape(len(refs), -1)]
        self._equal, self._less = (_guards(tape, op, place) for op in ("eq", "lt"))

    def run(self, variables: Numbers) -> Numbers | None:
        """The wanted results for other values of the variables; None where a comparison comes out differently."""
        values = self._start.copy()
        places, numbers = self._variables
        values[places] = variables[numbers]
        for op, where, left, right in self._levels:
            _OPS[op](values[left], values[right], out=values[where])
        a, b, equal = self._equal
        c, d, less = self._less
        if ((values[a] == values[b]) != equal).any() or ((values[c] < values[d]) != less).any():
            return None
        found: Numbers = values[self._wanted]
        return found

    def smooth(self, variables: Tensor) -> Tensor:
        """The wanted results for fractional values of the variables, differentiable.

        Quotients are not rounded down, and comparisons count as they came out when the tape was recorded.
        """
        places, numbers = (torch.from_numpy(i) for i in self._variables)
        first = self._levels[0][1].start if self._levels else len(self._start)
        start = torch.from_numpy(self._start[:first]).to(variables)
        values = start.index_copy(0, places, variables[numbers])
        for op, _, left, right in self._levels:  # each level's results stand behind those of the ones before
            a, b = (values.index_select(0, torch.from_numpy(side)) for side in (left, right))
            values = torch.cat([values, _SMOOTH[op](a, b)])
        return values[torch.from_numpy(self._wanted)]


def _guards(tape: Tape, op: str, place: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], Outcomes]:
    """Both sides of all comparisons of a kind, as places, and how they came out."""
    found = [(a, b, outcome) for (kind, a, b), outcome in tape.guards.items() if kind == op]
    table = np.array(found, np.intp).reshape(-1, 3)
    return place[table[:, 0]], place[table[:, 1]], table[:, 2].astype(bool)


def _constant(value: int) -> int | None:
    return None if isinstance(value, Size) else int(value)
