"""Which layers are compared: monotone, cheapest from the top, only what fits."""

from itertools import pairwise
from math import inf, isfinite

from hypothesis import given
from hypothesis import strategies as st

from compactor.training.matching import evenly, monotone

COST = st.one_of(st.floats(0, 10), st.just(inf))
COSTS = st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(COST, min_size=n, max_size=n), min_size=1, max_size=6))


@given(COSTS)
def test_both_sides_fall_strictly_and_only_what_fits_is_paired(costs: list[list[float]]) -> None:
    found = monotone(costs)
    assert all(a > c and b > d for (a, b), (c, d) in pairwise(found))
    assert all(isfinite(costs[t][s]) for t, s in found)


@given(COSTS)
def test_each_teacher_layer_takes_the_cheapest_that_is_left(costs: list[list[float]]) -> None:
    below, found = len(costs[0]), dict(monotone(costs))
    for layer in reversed(range(len(costs))):
        left = costs[layer][:below]
        if layer in found:
            assert costs[layer][found[layer]] == min(left)
            below = found[layer]
        else:
            assert not any(map(isfinite, left))


def test_an_unchanged_student_is_matched_with_itself() -> None:
    costs = [[abs(t - s) for s in range(5)] for t in range(5)]
    assert monotone(costs) == [(i, i) for i in reversed(range(5))]


def test_without_a_layer_left_the_lower_ones_have_no_partner() -> None:
    assert monotone([[0.0, 1.0], [0.5, 1.0]]) == [(1, 0)]


@given(st.integers(1, 40), st.integers(1, 10))
def test_layers_are_spread_to_the_last(count: int, chosen: int) -> None:
    found = evenly(count, chosen)
    assert len(found) == min(count, chosen) and found[-1] == count - 1 and sorted(set(found)) == found
    gaps = [b - a for a, b in pairwise([-1, *found])]
    assert max(gaps) - min(gaps) <= 1


def test_of_twelve_layers_of_two_blocks_every_third() -> None:
    assert evenly(24, 4) == [5, 11, 17, 23]
