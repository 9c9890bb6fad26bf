"""The probability that a kernel is there, from those of the blocks."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

Left = Callable[[frozenset[str]], frozenset[int]]
"""The kernels, by number, that are left without some blocks."""


class Presence:
    """Kernels go with the blocks they lie in: a kernel within several, one inside the other, needs all of them.

    What many blocks share, as the rotary embedding of all attention layers, goes when the last of them goes. So each
    kernel needs one block at least of each of some sets: of every block it lies in, alone, and of one set of blocks
    that it goes with together. Its probability is the product over the sets. Where a kernel goes with several such
    joint sets, only one of them counts, and the probability is too high rather than too low.
    """

    def __init__(self, left: Left, blocks: Sequence[str], kernels: int) -> None:
        left = cache(left)
        number = {name: i for i, name in enumerate(blocks)}
        alone = {name: left(frozenset([name])) for name in blocks}
        sets: dict[frozenset[str], int] = {}
        needs: list[list[int]] = []
        for kernel in range(kernels):
            own = {name for name in blocks if kernel not in alone[name]}
            joint = _smallest(kernel, left, [name for name in blocks if name not in own])
            found = [frozenset([name]) for name in own] + ([joint] if joint else [])
            needs.append([sets.setdefault(s, len(sets)) for s in found])
        self._sets = padded([[number[name] for name in s] for s in sets], len(blocks))
        self._needs = padded(needs, len(sets))

    def of(self, keep: Tensor) -> Tensor:
        """The probability of every kernel; ``keep``: that of every block, (blocks,)."""
        gone = torch.cat([1 - keep, keep.new_ones(1)])[self._sets].prod(1)
        return torch.cat([1 - gone, keep.new_ones(1)])[self._needs].prod(1)


def _smallest(kernel: int, left: Left, blocks: Sequence[str]) -> frozenset[str] | None:
    """Blocks without which the kernel goes and of which none is needless; None where it stays without all."""
    chosen = frozenset(blocks)
    if kernel in left(chosen):
        return None
    for name in blocks:
        if kernel not in left(chosen - {name}):
            chosen -= {name}
    return chosen


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Rows of numbers as one table, (rows, longest), short ones filled."""
    width = max(map(len, rows), default=0)
    filled = [[*row, *[fill] * (width - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.long).reshape(len(rows), width)
