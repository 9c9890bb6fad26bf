"""Which candidates nothing beats in every respect."""

from collections.abc import Sequence

import numpy as np


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the points that no other dominates, in order; higher is better in every coordinate.

    A point dominates another when it is at least as good everywhere and better somewhere; of equal ones the first stays.
    """
    table = np.asarray(points, dtype=float).reshape(len(points), -1)
    kept = []
    for i, point in enumerate(table):
        above = (table >= point).all(1)
        better = above & (table > point).any(1)
        equal_before = (table[:i] == point).all(1).any() if i else False
        if not better.any() and not equal_before:
            kept.append(i)
    return kept
