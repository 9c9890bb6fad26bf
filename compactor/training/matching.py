"""Which hidden state of the student learns from which of the teacher's."""

from collections.abc import Sequence
from math import isfinite


def monotone(costs: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(teacher, student) positions, the highest first: from the top teacher layer down, the cheapest student layer
    below the one before.

    ``costs[t][s]``: of student layer s to teacher layer t; infinite where the two cannot be compared. A teacher layer
    for which none is left has no partner. CoFi (arXiv 2204.00408, section 3.3).
    """
    found: list[tuple[int, int]] = []
    for layer in reversed(range(len(costs))):
        below = found[-1][1] if found else len(costs[layer])
        best = min(range(below), key=costs[layer].__getitem__, default=None)
        if best is not None and isfinite(costs[layer][best]):
            found.append((layer, best))
    return found


def evenly(count: int, chosen: int) -> list[int]:
    """``chosen`` of ``count`` layers, from 0, evenly and the last one among them: of 12, four are 2, 5, 8 and 11."""
    chosen = min(count, chosen)
    return [(i + 1) * count // chosen - 1 for i in range(chosen)]
