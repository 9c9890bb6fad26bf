"""The latency model: order, monotony, intervals, speed."""

import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.errors import UnsupportedError
from compactor.ir.kernels import KINDS, UNKNOWN, Kernel
from compactor.targets.device import ProfileTarget
from compactor.targets.registry import profiles

TARGETS = [profiles.resolve(name) for name in profiles.names()]


@pytest.fixture(params=TARGETS, ids=lambda t: t.name)
def target(request: pytest.FixtureRequest) -> ProfileTarget:
    return request.param  # type: ignore[no-any-return]


def conv(side: int, before: int, after: int, node: str = "conv") -> Kernel:
    rows, depth = side * side, before * 9
    return Kernel("conv", rows * after * depth, rows * before, after * depth, rows * after, node, 1, rows, after, depth)


def linear(rows: int, depth: int, columns: int) -> Kernel:
    return Kernel(
        "linear", rows * depth * columns, rows * depth, depth * columns, rows * columns, "l", 1, rows, columns, depth
    )


def test_more_work_is_never_faster(target: ProfileTarget) -> None:
    for precision in target.precisions:
        for family in (
            [conv(28, 64, n) for n in range(1, 300)],
            [conv(28, n, 64) for n in range(1, 300)],
            [conv(n, 32, 32) for n in range(1, 120)],
            [linear(64, 384, n) for n in range(1, 2000, 7)],
        ):
            times = [target.predict([k], precision).p50 for k in family]
            assert all(a <= b for a, b in pairwise(times))


def test_more_kernels_take_longer(target: ProfileTarget) -> None:
    one, two = ([conv(8, 16, 16)] * n for n in (1, 2))
    precision = target.precisions[-1]
    assert target.predict(two, precision).p50 > target.predict(one, precision).p50


def test_low_precision_pays_on_big_convolutions(target: ProfileTarget) -> None:
    times = [target.predict([conv(64, 256, 256)] * 20, p).p50 for p in target.precisions]
    if target.given.detect and target.profile.model.efficiency.get("int8", 1.0) < 0.1:
        pytest.skip("with AMX, BF16 and INT8 were measured to be alike")
    assert times == sorted(times, reverse=True) and times[-1] < times[0]


def test_precision_hardly_matters_on_tiny_kernels() -> None:
    target = profiles.resolve("jetson-orin")
    half, int8 = (target.predict([conv(8, 16, 16)] * 50, p).p50 for p in ("float16", "int8"))
    assert half == pytest.approx(int8, rel=0.1)


def test_every_kernel_kind_has_a_time(target: ProfileTarget) -> None:
    for kind in KINDS:
        found = target.predict([Kernel(kind, 0, 100, 0, 100, "x")], target.precisions[0])
        assert found.p50 > 0


def test_interval_holds_the_median_and_says_predicted(target: ProfileTarget) -> None:
    for precision in target.precisions:
        found = target.predict([conv(32, 16, 32)] * 10, precision)
        assert found.basis == "predicted" and found.n is None
        assert found.low is not None and found.high is not None and found.low < found.p50 < found.high


def test_nothing_predicted_is_below_the_floor(target: ProfileTarget) -> None:
    for kernels in ([conv(8, 16, 16)] * 30, [conv(64, 256, 256)] * 3, [linear(1, 4096, 4096)] * 5):
        predictions = [target.predict(kernels, p) for p in target.precisions]
        assert 0 < target.floor(kernels) <= min(p.low for p in predictions if p.low is not None)


def test_no_kernels_cost_the_call_only(target: ProfileTarget) -> None:
    assert target.predict([], target.precisions[-1]).p50 == target.profile.model.call_us / 1e3
    assert target.floor([]) == 0


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"jetson-orin does not run 'bfloat16'.*\n.*float16"):
        profiles.resolve("jetson-orin").predict([conv(8, 8, 8)], "bfloat16")


def test_predictions_repeat_and_are_fast() -> None:
    target, kernels = profiles.resolve("jetson-orin"), [conv(16, 32, 32, f"c{i}") for i in range(60)]
    first = target.predict(kernels, "int8")
    times = []
    for _ in range(100):
        start = time.perf_counter()
        assert target.predict(kernels, "int8") == first
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3


def test_padding_to_lanes() -> None:
    target = profiles.resolve("jetson-orin")
    wide = [target.predict([conv(64, 256, n)], "int8").p50 for n in (240, 241, 256)]
    assert wide[0] < wide[1] and wide[1] == pytest.approx(wide[2], rel=0.05)


KERNELS = st.builds(
    lambda kind, rows, depth, columns, extra: Kernel(
        kind,
        rows * depth * columns,
        rows * depth + extra,
        depth * columns,
        rows * columns,
        "k",
        1,
        rows,
        columns,
        depth,
    ),
    st.sampled_from(KINDS),
    *[st.integers(1, 2048)] * 3,
    st.integers(0, 10**6),
)


@settings(deadline=None)
@given(st.sampled_from(TARGETS), st.lists(KERNELS, max_size=30), st.data())
def test_the_breakdown_sums_to_the_prediction(
    target: ProfileTarget, kernels: list[Kernel], data: st.DataObject
) -> None:
    precision = data.draw(st.sampled_from(target.precisions))
    parts = target.breakdown(kernels, precision)
    assert [p.kernel for p in parts] == kernels
    whole = sum(p.us for p in parts) + target.profile.model.call_us
    assert whole / 1e3 == pytest.approx(target.predict(kernels, precision).p50, rel=1e-9)
    assert all(p.us >= target.profile.model.floor_us and p.bytes > 0 for p in parts)


def test_what_bounds_a_kernel(target: ProfileTarget) -> None:
    copy = Kernel("move", 0, 10**8, 0, 10**8, "copy")
    for precision in target.precisions:
        bounds = [p.bound for p in target.breakdown([conv(1, 1, 1), conv(128, 512, 512), copy], precision)]
        assert bounds == ["launch", "compute", "memory"]


@settings(deadline=None)
@given(st.sampled_from(TARGETS), st.lists(KERNELS, min_size=1, max_size=10))
def test_an_unknown_kernel_is_named_and_widens_the_interval(target: ProfileTarget, kernels: list[Kernel]) -> None:
    known = [replace(k, kind="move") for k in kernels]
    odd = replace(known[0], kind=UNKNOWN, node="strange")
    sure, unsure = (target.predict(k, target.precisions[-1]) for k in (known, [*known[1:], odd]))
    assert unsure.p50 == pytest.approx(sure.p50, rel=1e-9), "counted by its traffic"
    assert unsure.low <= sure.low * (1 + 1e-9) and unsure.high > sure.high  # type: ignore[operator]
    assert unsure.low >= target.floor([*known[1:], odd]) * (1 - 1e-9)  # type: ignore[operator]
    assert sure.warning is None and unsure.warning == f"no model for 1 of {len(known)} kernels: strange"


@settings(deadline=None)
@given(st.sampled_from(TARGETS), st.lists(KERNELS, min_size=1, max_size=20), st.data())
def test_each_kernel_may_have_its_own_precision(
    target: ProfileTarget, kernels: list[Kernel], data: st.DataObject
) -> None:
    given = data.draw(st.lists(st.sampled_from(target.precisions), min_size=len(kernels), max_size=len(kernels)))
    alone = [target.breakdown(kernels, p)[i] for i, p in enumerate(given)]
    assert list(target.breakdown(kernels, given)) == alone
    found = target.predict(kernels, given)
    whole = sum(t.us for t in alone) + target.profile.model.call_us
    assert found.p50 == pytest.approx(whole / 1e3, rel=1e-9) and found.low <= found.p50 <= found.high  # type: ignore[operator]
    for precision in set(given):
        uniform = target.predict(kernels, [precision] * len(kernels)), target.predict(kernels, precision)
        assert uniform[0].p50 == pytest.approx(uniform[1].p50, rel=1e-9)
