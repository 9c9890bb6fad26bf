"""The order in which `search.uniform` removes blocks."""

from hypothesis import given
from hypothesis import strategies as st

from compactor.passes.search.ladder import removal_order


@given(st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=9), min_size=1, max_size=4))
def test_classes_lose_the_same_share_and_the_least_damaging_first(sizes: list[list[float]]) -> None:
    classes = [[f"{c}.{i}" for i in range(len(members))] for c, members in enumerate(sizes)]
    damage = {f"{c}.{i}": value for c, members in enumerate(sizes) for i, value in enumerate(members)}
    order = removal_order(classes, damage)
    assert sorted(order) == sorted(damage)
    for step in range(len(order) + 1):
        gone = [[name for name in members if name in order[:step]] for members in classes]
        for members, lost in zip(classes, gone, strict=True):
            kept = [damage[name] for name in members if name not in lost]
            assert not lost or not kept or max(damage[name] for name in lost) <= min(kept)
        for a, lost_a in zip(classes, gone, strict=True):
            for b, lost_b in zip(classes, gone, strict=True):
                assert len(lost_a) / len(a) <= len(lost_b) / len(b) + 1 / min(len(a), len(b)) + 1e-9
