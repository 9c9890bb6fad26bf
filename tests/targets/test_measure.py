"""Measurement: tolerance, interleaving, overhead, warnings."""

import gc
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from compactor.backend import Session
from compactor.errors import UsageError
from compactor.targets.measure import compare, measure, summarize

INPUTS = (torch.zeros(1, 3),)


class Timed(Session):
    """A session that takes as long as it is told, busy or asleep, and remembers when it ran."""

    runtime = "python"

    def __init__(
        self, seconds: float, wait: Callable[[float], None], log: list[str] | None = None, name: str = ""
    ) -> None:
        self.seconds, self.wait, self.log, self.name = seconds, wait, log, name
        self.own: list[float] = []

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self.log is not None:
            self.log.append(self.name)
        start = time.perf_counter()
        self.wait(self.seconds)
        self.own.append(time.perf_counter() - start)
        return tuple(inputs)

    def median(self, warmup: int = 2) -> float:
        """What the queries themselves took, milliseconds: a loaded machine stretches even a sleep."""
        return float(np.median(self.own[warmup:])) * 1e3


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_session_that_sleeps() -> None:
    session = Timed(0.004, time.sleep)
    found = measure(session, INPUTS, seconds=0.3, warmup=0)
    assert found.basis == "measured" and found.n is not None and found.n >= 64
    assert found.p50 >= 4 and found.p50 == pytest.approx(session.median(), rel=0.2)
    assert found.p90 is not None and found.p99 is not None and found.p50 <= found.p90 <= found.p99


def test_overhead_is_below_one_percent_at_a_millisecond() -> None:
    session = Timed(0.001, busy)
    found = measure(session, INPUTS, seconds=0.3, warmup=0)
    assert found.p50 == pytest.approx(session.median(), rel=0.01)


def test_minimum_duration() -> None:
    start = time.perf_counter()
    found = measure(Timed(0.0001, busy), INPUTS, seconds=0.2, warmup=0)
    assert found.n is not None and found.n > 64
    assert 0.2 <= time.perf_counter() - start < 5


def test_rounds_are_interleaved() -> None:
    log: list[str] = []
    sessions = {name: Timed(0.0005, busy, log, name) for name in "ab"}
    found = compare(sessions, INPUTS, seconds=0.6, warmup=0)
    assert list(found) == ["a", "b"]
    turns = sum(a != b for a, b in pairwise(log))
    assert turns >= 16 and log.count("a") >= 64 <= log.count("b")


def test_each_session_gets_its_own_figure() -> None:
    sessions = {"slow": Timed(0.002, busy), "fast": Timed(0.001, busy)}
    found = compare(sessions, INPUTS, seconds=0.1, warmup=0)
    assert found["slow"].p50 > found["fast"].p50
    assert all(found[name].p50 == pytest.approx(session.median(), rel=0.2) for name, session in sessions.items())


def test_first_queries_are_discarded() -> None:
    class Cold(Session):
        runtime = "python"
        calls = 0

        def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
            self.calls += 1
            busy(0.2 if self.calls <= 2 else 0.0005)
            return tuple(inputs)

    found = measure(Cold(), INPUTS, seconds=0.05, warmup=0)
    assert found.p99 is not None and found.p99 < 100


def test_the_time_limit_is_told() -> None:
    found = measure(Timed(0.02, time.sleep), INPUTS, limit=0.3, warmup=0)
    assert found.n is not None and found.n < 64
    assert found.warning is not None and "of 64 queries" in found.warning


def test_garbage_collection_is_off_while_timing_and_back_after() -> None:
    states: set[bool] = set()
    measure(Timed(0, lambda _: states.add(gc.isenabled())), INPUTS, seconds=0, warmup=0)
    assert states == {False} and gc.isenabled()


def test_garbage_collection_is_back_after_an_error() -> None:
    def fail(_: float) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure(Timed(0, fail), INPUTS)
    assert gc.isenabled()


def test_noise_and_drift_are_told() -> None:
    quiet = np.full(90, 0.001)
    assert summarize(quiet).warning is None
    noisy = quiet.copy()
    noisy[::5] = 0.01
    assert "noisy" in (summarize(noisy).warning or "")
    assert "drifting" in (summarize(np.linspace(0.001, 0.002, 90)).warning or "")


def test_threads_are_stated() -> None:
    session = Timed(0, busy)
    session.threads = 2  # type: ignore[attr-defined]
    assert measure(session, INPUTS, seconds=0, warmup=0).threads == 2


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="0 sessions"):
        compare({}, INPUTS)
