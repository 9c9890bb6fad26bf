"""What profiles of runtimes have in common: names of the file's nodes inside those that runtimes make up."""

import re
import time
from collections.abc import Callable, Sequence

from compactor.backend import Executed

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*\.\d+")
_LEAST = 12


def names_in(text: str) -> tuple[str, ...]:
    """The names of a file's nodes in what a runtime calls one of its own."""
    return tuple(dict.fromkeys(_NAME.findall(text)))


def repeat(run: Callable[[], object], seconds: float) -> int:
    """Run for this time and at least a few times; how often it was."""
    end, count = time.perf_counter() + seconds, 0
    while count < _LEAST or time.perf_counter() < end:
        run()
        count += 1
    return count


def attributed(nodes: Sequence[tuple[str, float]]) -> list[Executed]:
    """Executed nodes, in order, from what they are called and their microseconds.

    Lowered files name their nodes ``Add.7``, and runtimes derive other names from those. What a runtime added without
    such a name (most convert between layouts) counts to the next node that has one, which it mostly feeds.
    """
    found: list[Executed] = []
    waiting: list[float] = []
    for text, us in nodes:
        waiting.append(us)
        if names := names_in(text):
            found.append(Executed(names, sum(waiting), len(waiting)))
            waiting = []
    if found and waiting:
        found[-1] = Executed(found[-1].names, found[-1].us + sum(waiting), found[-1].count + len(waiting))
    return found
