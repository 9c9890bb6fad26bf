"""What pays in int8: the cheapest choice of layers is the optimum, whatever the layers and conversions."""

from dataclasses import replace
from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.passes.quantize.payoff import Conversion, Layer, Payoff

TIMES = st.floats(0.1, 50)


@st.composite
def payoffs(draw: st.DrawFn) -> Payoff:
    count = draw(st.integers(1, 7))
    layers = [Layer(f"l{i}", (f"l{i}", f"add{i}"), draw(TIMES), draw(TIMES)) for i in range(count)]
    numbers = st.integers(0, count - 1)
    readers = st.lists(numbers, min_size=1, max_size=3, unique=True).map(tuple)
    conversions = draw(st.lists(st.builds(Conversion, numbers, readers, TIMES), max_size=8))
    needs = draw(st.lists(st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1]), max_size=2))
    return Payoff(tuple(layers), tuple(conversions), needs=tuple(needs))


def subsets(count: int) -> list[frozenset[int]]:
    return [frozenset(c) for c in chain.from_iterable(combinations(range(count), n) for n in range(count + 1))]


@given(payoffs(), st.sampled_from([0.0, 1.0, 3.0]), st.sets(st.integers(0, 6), max_size=2))
@settings(deadline=None)
def test_no_choice_is_cheaper(payoff: Payoff, conversions: float, exact: set[int]) -> None:
    count = len(payoff.layers)
    nodes = [f"add{i}" for i in exact]
    found = payoff.cheapest(nodes, conversions)
    assert not found & payoff.layers_of(nodes) and payoff.layers_of(nodes) == exact & set(range(count))
    allowed = [s for s in subsets(count) if not s & exact and s == payoff.closed(s)]
    assert found in allowed
    least = min(payoff.total(s, conversions) for s in allowed)
    assert payoff.total(found, conversions) == pytest.approx(least, rel=1e-5)
    without = {n for i in range(count) if i not in found for n in payoff.layers[i].nodes}
    assert set(payoff.nodes(found)) == without


def chain_of(*times: tuple[float, float], between: float) -> Payoff:
    layers = tuple(Layer(f"l{i}", (f"l{i}",), *pair) for i, pair in enumerate(times))
    return Payoff(layers, tuple(Conversion(i, (i + 1,), between) for i in range(len(times) - 1)))


def test_a_layer_that_loses_a_little_joins_its_neighbours() -> None:
    payoff = chain_of((9, 1), (3, 4), (9, 1), between=2)
    assert payoff.cheapest() == {0, 1, 2}, "one conversion costs more than the layer in the middle"
    assert payoff.cheapest(conversions=0) == {0, 2}


def test_a_small_gain_is_not_worth_a_conversion() -> None:
    payoff = chain_of((5, 9), (3, 2), (5, 9), between=2)
    assert payoff.cheapest() == frozenset()
    assert payoff.cheapest(conversions=0) == {1}
    dear = replace(payoff, layers=(*payoff.layers[:1], Layer("l1", ("l1",), 30, 2), *payoff.layers[2:]))
    assert dear.cheapest() == {1}


def test_equals_stay_in_float() -> None:
    assert chain_of((1, 1), (2, 2), between=0).cheapest() == frozenset()
