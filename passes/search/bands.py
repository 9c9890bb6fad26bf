"""The sub-spaces of `search.autodistil`: three compact bands of a teacher's own depth and widths."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from compactor.ir.space import SearchSpace
from compactor.ir.subnet import Subnet
from compactor.passes.search.ladder import block_classes, count


@dataclass(frozen=True)
class Band:
    """Shares of the teacher's axes, descending. ``ffn`` goes with the hidden share, as a ratio of widths does."""

    name: str
    depth: tuple[float, ...]
    hidden: tuple[float, ...]
    ffn: tuple[float, ...]
    heads: tuple[float, ...]
    channels: tuple[float, ...]


def _of(whole: int, *parts: int) -> tuple[float, ...]:
    return tuple(part / whole for part in parts)


BANDS = (
    Band(
        "base",
        depth=_of(12, 12, 11, 10, 9),
        hidden=_of(768, 640, 608, 576, 544),
        ffn=_of(8, 8, 7, 6, 5),
        heads=_of(12, 12, 11, 10, 9),
        channels=_of(16, 15, 14, 13, 12),
    ),
    Band(
        "small",
        depth=_of(12, 12, 11, 10, 9),
        hidden=_of(768, 352, 320, 288, 256),
        ffn=_of(8, 8, 7, 6, 5),
        heads=_of(12, 10, 9, 8, 7),
        channels=_of(16, 11, 10, 9, 8),
    ),
    Band(
        "tiny",
        depth=_of(12, 7, 6, 5, 4),
        hidden=_of(768, 224, 192, 160, 128),
        ffn=_of(8, 7, 6, 5, 4),
        heads=_of(12, 10, 9, 8, 7),
        channels=_of(16, 7, 6, 5, 4),
    ),
)
"""Largest first: table 1 of AutoDistil (arXiv 2201.12507) as shares of BERT-base; those of channels are ours."""


def subnets(space: SearchSpace, band: Band, multiple: int = 8) -> list[Subnet]:
    """Every subnet of a band once, largest first and smallest last; all lie within the largest.

    Groups of a kind keep the same share of their units, the leading ones. Classes of like blocks keep the same share,
    evenly spread: block floor(i / share) of what the deepest keeps.
    """
    classes = block_classes(space.program, space.blocks)
    axes = (band.depth, band.hidden, band.ffn, band.heads, band.channels)
    found = []
    for depth, hidden, ffn, heads, channels in itertools.product(*axes):
        widths = {"hidden": hidden, "ffn": ffn * hidden, "heads": heads, "channels": channels}
        kept = {g.name: range(count(g, widths[g.kind], multiple)) for g in space.groups}
        found.append(space.choose(kept, [name for members in classes for name in _gone(members, depth, band.depth[0])]))
    return list(dict.fromkeys(found))


def _gone(members: Sequence[str], share: float, deepest: float) -> set[str]:
    """What a class of blocks loses: nested in what the deepest subnet keeps."""
    within = _spread(members, deepest)
    return set(members) - set(_spread(within, share / deepest))


def _spread(members: Sequence[str], share: float) -> list[str]:
    count = min(len(members), max(1, round(share * len(members))))
    return [members[i * len(members) // count] for i in range(count)]
