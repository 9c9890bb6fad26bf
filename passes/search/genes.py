"""Candidates as evolution sees them: a width per axis group, a depth per class of like blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from compactor.errors import InputError
from compactor.ir.space import AxisGroup, SearchSpace
from compactor.ir.subnet import Subnet, ranked
from compactor.passes.search.importance import Importance
from compactor.passes.search.ladder import block_classes, count, removal_order, widths

_REACH = 4
"""A mutation moves a gene by at most one part in this many of its levels."""
_BISECTIONS = 6
_ATTEMPTS = 200


@dataclass(frozen=True)
class Genes:
    """``kept``: units per group; ``removed``: blocks per class. Importance tells which ones."""

    kept: tuple[int, ...]
    removed: tuple[int, ...]


@dataclass(frozen=True)
class Genome:
    """What may be chosen, and what a choice means.

    Attributes:
        space: id of the search space.
        orders: units of each group, the most important first.
        levels: how many units of each group may be kept, ascending; more than there are repeat the best.
        classes: names of like blocks, in the order in which they are removed.
    """

    space: str
    orders: dict[str, tuple[int, ...]]
    levels: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(
        space: SearchSpace, importance: Importance, *, smallest: float, multiple: int, wider: float = 1.0
    ) -> "Genome":
        """The genome of a space: widths in sixteenths as `search.uniform` has them, every depth.

        Widths go on to ``wider`` times the teacher's where a student with repeated units computes the same.
        """
        groups = [g for g in space.groups if g.name in importance.orders]
        levels = (
            sorted({count(g, w, multiple) for w in widths(smallest)} | {g.size} | _wide(space, g, wider, multiple))
            for g in groups
        )
        like = block_classes(space.program, space.blocks) if importance.damage else []
        return Genome(
            space.id,
            {g.name: tuple(importance.orders[g.name]) for g in groups},
            tuple(map(tuple, levels)),
            tuple(tuple(removal_order([names], importance.damage)) for names in like),
        )

    def subnet(self, genes: Genes) -> Subnet:
        """The choice: the most important units, the best of them twice where it is wider, without the least blocks."""
        orders = self.orders.items()
        kept = {name: ranked(order, n) for (name, order), n in zip(orders, genes.kept, strict=True) if n != len(order)}
        dropped = [name for names, n in zip(self.classes, genes.removed, strict=True) for name in names[:n]]
        return Subnet.of(self.space, kept, tuple(dropped))

    def genes(self, subnet: Subnet) -> Genes:
        """The inverse of `subnet`, for a choice that importance made."""
        kept, dropped = dict(subnet.kept), set(subnet.dropped)
        counts = tuple(len(kept.get(name, order)) for name, order in self.orders.items())
        return Genes(counts, tuple(len(dropped & set(names)) for names in self.classes))

    def mutated(self, genes: Genes, rng: np.random.Generator) -> Genes | None:
        """One gene, drawn at random, moved by at most a quarter of its levels; None when there is nothing to choose."""
        free = [i for i, levels in enumerate(self.levels) if len(levels) > 1]
        gene = int(rng.integers(len(free) + len(self.classes))) if free or self.classes else None
        if gene is None:
            return None
        if gene < len(free):
            i = free[gene]
            levels = self.levels[i]
            level = levels[_moved(levels.index(genes.kept[i]), len(levels), rng)]
            return Genes((*genes.kept[:i], level, *genes.kept[i + 1 :]), genes.removed)
        i = gene - len(free)
        removed = _moved(genes.removed[i], len(self.classes[i]) + 1, rng)
        return Genes(genes.kept, (*genes.removed[:i], removed, *genes.removed[i + 1 :]))

    def sample(self, rng: np.random.Generator, fits: Callable[[Genes], bool]) -> Genes | None:
        """A random candidate about as wide as it may be: depth and proportions by chance, then the largest that fits.

        None when chance finds none.
        """
        for _ in range(_ATTEMPTS):
            depth = rng.uniform(0, 1)
            removed = tuple(round(len(c) * float(np.clip(rng.normal(depth, 0.15), 0, 1))) for c in self.classes)
            shares = np.exp(rng.normal(0, 0.35, len(self.levels)))
            low, high, best = 0.0, 2.0, None
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                genes = Genes(self._widths(shares * middle), removed)
                if fits(genes):
                    low, best = middle, genes
                else:
                    high = middle
            if best is not None:
                return best
        return None

    def _widths(self, shares: Any) -> tuple[int, ...]:
        """The nearest level to each share of a group."""
        return tuple(
            min(levels, key=lambda n: abs(n - share * len(order)))
            for levels, share, order in zip(self.levels, shares, self.orders.values(), strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; genes are in the order of groups. Levels are not needed to read candidates."""
        return {
            "space": self.space,
            "orders": [[name, list(order)] for name, order in self.orders.items()],
            "classes": [list(names) for names in self.classes],
        }

    @staticmethod
    def from_dict(data: Any) -> "Genome":
        """The inverse of `to_dict`, without levels. Raises `InputError` when it is not one."""
        try:
            orders = {str(k): tuple(int(i) for i in v) for k, v in data["orders"]}
            classes = tuple(tuple(str(b) for b in names) for names in data["classes"])
            return Genome(str(data["space"]), orders, (), classes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not the genome of a search: {error!r}", "give what `compactor search` wrote") from error


def _wide(space: SearchSpace, group: AxisGroup, wider: float, multiple: int) -> set[int]:
    """The widths above a group's size, where repeating some of its units changes no result."""
    found = {n for n in space.choices(group, wider, min(multiple, group.size)) if n > group.size}
    some = (*range(group.size), 0)
    return set() if found and space.changes(space.choose({group.name: some})) else found


def _moved(at: int, size: int, rng: np.random.Generator) -> int:
    reach = max(1, size // _REACH)
    near = [n for n in range(max(0, at - reach), min(size, at + reach + 1)) if n != at]
    return near[int(rng.integers(len(near)))]
