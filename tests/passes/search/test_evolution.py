"""Ageing evolution on made-up genomes: budgets hold, seeds decide, a stopped search goes on to the same end."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.passes.search.evolution import Evolution, Member
from compactor.passes.search.genes import Genes, Genome
from compactor.passes.search.pareto import front


def genome(groups: int, classes: int) -> Genome:
    """Groups of sixteen units in steps of two, classes of four blocks."""
    orders = {f"g{i}": tuple(range(16)) for i in range(groups)}
    blocks = tuple(tuple(f"b{c}.{i}" for i in range(4)) for c in range(classes))
    return Genome("space", orders, (tuple(range(2, 17, 2)),) * groups, blocks)


def cost(genes: Genes) -> int:
    """Kept units, more per block."""
    return sum(genes.kept) * (1 + sum(4 - r for r in genes.removed))


def value(genes: Genes) -> tuple[float, ...]:
    """Balanced widths are best, and little else is."""
    return (float(sum(genes.kept)) - 3.0 * float(np.std(genes.kept)), -float(sum(genes.removed)))


def score(genes: Sequence[Genes]) -> list[tuple[float, ...]]:
    """All of them."""
    return [value(g) for g in genes]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 99), st.floats(0.05, 1.0))
def test_every_member_fits_and_none_comes_twice(groups: int, classes: int, seed: int, share: float) -> None:
    which = genome(groups, classes)
    limit = share * cost(Genes((16,) * groups, (0,) * classes))
    members = Evolution(80, seed).run(which, lambda g: cost(g) <= limit, score)
    assert all(cost(m.genes) <= limit for m in members)
    assert len({m.genes for m in members}) == len(members) <= 80
    for genes in (m.genes for m in members):
        subnet = which.subnet(genes)
        assert which.genes(subnet) == genes
        assert all(name.split(".")[0] in {f"b{c}" for c in range(classes)} for name in subnet.dropped)


def changes(parent: Genes, child: Genes) -> int:
    """Genes that differ."""
    pairs = zip((*parent.kept, *parent.removed), (*child.kept, *child.removed), strict=True)
    return sum(a != b for a, b in pairs)


@given(st.integers(0, 999))
def test_a_mutation_changes_one_gene(seed: int) -> None:
    which, rng = genome(4, 2), np.random.default_rng(seed)
    parent = Genes((16, 2, 8, 10), (0, 4))
    child = which.mutated(parent, rng)
    assert child is not None and changes(parent, child) == 1
    assert all(n in range(2, 17, 2) for n in child.kept) and all(0 <= r <= 4 for r in child.removed)


def test_nothing_to_choose() -> None:
    fixed = Genome("space", {"g": (0,)}, ((1,),), ())
    assert fixed.mutated(Genes((1,), ()), np.random.default_rng(0)) is None
    assert [m.genes for m in Evolution(50).run(fixed, lambda g: True, score)] == [Genes((1,), ())]
    assert Evolution(50).run(fixed, lambda g: False, score) == []


def test_evolution_beats_chance() -> None:
    which = genome(8, 2)

    def fits(genes: Genes) -> bool:
        return cost(genes) <= 400

    evolved = Evolution(400, seed=1).run(which, fits, score)
    rng = np.random.default_rng(1)
    drawn = [g for g in (which.sample(rng, fits) for _ in range(400)) if g is not None]
    best = max(sum(value(m.genes)) for m in evolved)
    assert best > max(sum(value(g)) for g in drawn)


def test_a_stopped_search_goes_on_to_the_same_end() -> None:
    which, evolution = genome(5, 1), Evolution(120, seed=7)
    saved: list[tuple[Member, ...]] = []

    def fits(genes: Genes) -> bool:
        return cost(genes) <= 150

    whole = evolution.run(which, fits, score, save=lambda members: saved.append(tuple(members)))
    assert len(saved) > 3
    for history in saved[:-1]:
        assert evolution.run(which, fits, score, history=history) == whole
    assert Evolution(120, seed=8).run(which, fits, score) != whole


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_the_front_dominates_all_else(points: list[tuple[int, ...]]) -> None:
    kept = [points[i] for i in front(points)]
    assert len(set(kept)) == len(kept)

    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    assert not any(dominates(a, b) for a in kept for b in kept)
    assert all(p in kept or any(dominates(k, p) for k in kept) for p in points)
