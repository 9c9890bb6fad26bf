"""Latency measurement after MLPerf's single-stream scenario: one query at a time, warm-up discarded, percentiles.

At least 64 queries (the count MLPerf Inference derives for a p90) and at least a minimum duration, after a warm-up.
Garbage collection is off while the clock runs. `compare` interleaves turns of all sessions, so that drift of the
machine (clocks, temperature, neighbours) hits them alike; a turn starts with queries that do not count, as a device
that serves one model is warm.

One measurement runs on a machine at a time. This file is also copied to devices that are elsewhere, where there is no
torch.
"""

import errno
import gc
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compactor.errors import UsageError
from compactor.latency import Latency

if TYPE_CHECKING:
    from torch import Tensor

    from compactor.backend import Session

QUERIES = 64
SECONDS, WARMUP = 0.7, 0.15
TURN, ROUND = 0.06, 8
"""Seconds and queries of a turn that count, at least."""
SETTLE, UNMEASURED = 0.05, 2
"""Seconds and queries at the start of a turn after another session's: that one has emptied the caches, and threads that
slept are often woken on a core that is busy, which took ONNX Runtime up to 50 ms to get over, at 1.7 times its latency.
"""
_NOISY = 1.5
"""A p90 this many times the p50 says that something else was running."""
_DRIFT = 1.15
PATIENCE = 120.0
"""Seconds to wait for another measurement on this machine to end."""
_NAME, _PAUSE = "\0compactor-measuring", 0.02

Samples = NDArray[np.float64]


def measure(
    session: "Session",
    inputs: "Sequence[Tensor]",
    *,
    queries: int = QUERIES,
    seconds: float = SECONDS,
    warmup: float = WARMUP,
    limit: float = 60.0,
) -> Latency:
    """Latency of single queries, one after the other.

    Runs until both ``queries`` and ``seconds`` are reached, but not beyond ``limit`` seconds (a model that takes
    seconds then has fewer queries, which ``n`` and the warning say).
    """
    return compare({"": session}, inputs, queries=queries, seconds=seconds, warmup=warmup, limit=limit)[""]


def compare(
    sessions: "Mapping[str, Session]",
    inputs: "Sequence[Tensor]",
    *,
    queries: int = QUERIES,
    seconds: float = SECONDS,
    warmup: float = WARMUP,
    limit: float = 60.0,
) -> dict[str, Latency]:
    """Latencies of several sessions on the same inputs, measured in interleaved turns.

    Every session gets at least ``queries`` queries and ``seconds`` seconds, unless ``limit`` seconds are over.
    Raises `UsageError` for no sessions or a count that is not positive.
    """
    runs = {name: session.query(inputs) for name, session in sessions.items()}
    found = timed(runs, queries=queries, seconds=seconds, warmup=warmup, limit=limit)
    return {name: summarize(found[name], queries, getattr(s, "threads", None)) for name, s in sessions.items()}


def timed(
    runs: Mapping[str, Callable[[], object]],
    *,
    queries: int = QUERIES,
    seconds: float = SECONDS,
    warmup: float = WARMUP,
    limit: float = 60.0,
) -> dict[str, Samples]:
    """Seconds of every query, each a call of its run: what `compare` summarizes, raising the same."""
    if not runs or queries < 1 or seconds < 0 or limit <= 0:
        raise UsageError(
            f"cannot measure {len(runs)} sessions with {queries} queries in {seconds} s (limit {limit} s)",
            "give at least one session, one query and a positive limit",
        )
    samples: dict[str, list[float]] = {name: [] for name in runs}
    with _alone(), _quiet():
        for run in runs.values():
            _warm(run, warmup)
        end = time.perf_counter() + limit * len(runs)
        while unfinished := [n for n, s in samples.items() if len(s) < queries or sum(s) < seconds]:
            for name in unfinished:
                if len(runs) > 1:
                    _turn(runs[name], UNMEASURED, min(SETTLE, seconds))
                samples[name] += _turn(runs[name], ROUND, min(TURN, seconds))
            if time.perf_counter() > end:
                break
    return {name: np.array(values) for name, values in samples.items()}


def summarize(samples: Samples, queries: int = QUERIES, threads: int | None = None) -> Latency:
    """The `Latency` of query times in seconds, with a warning where they are few or noisy."""
    ms = samples * 1e3
    p50, p90, p99 = (float(v) for v in np.percentile(ms, (50, 90, 99)))
    thirds = [float(np.median(part)) for part in np.array_split(ms, 3) if len(part)]
    warnings = []
    if len(ms) < queries:
        warnings.append(f"only {len(ms)} of {queries} queries fit into the time limit")
    if p90 > _NOISY * p50:
        warnings.append(f"noisy: p90 is {p90 / p50:.1f} times p50; close other programs and measure again")
    if len(ms) >= queries and max(thirds) > _DRIFT * min(thirds):
        warnings.append(f"drifting: the median moved by {max(thirds) / min(thirds) - 1:.0%} during the measurement")
    return Latency(p50, "measured", p90, p99, len(ms), threads=threads, warning="; ".join(warnings) or None)


def _warm(run: Callable[[], object], seconds: float) -> None:
    """At least two queries: the first one often allocates and compiles."""
    _turn(run, 2, seconds)


def _turn(run: Callable[[], object], least: int, seconds: float) -> list[float]:
    """The times of at least ``least`` queries, for at least ``seconds``."""
    clock = time.perf_counter
    times: list[float] = []
    end = clock() + seconds
    start = 0.0
    while len(times) < least or start < end:
        start = clock()
        run()
        times.append(clock() - start)
    return times


@contextmanager
def _alone() -> Iterator[None]:
    """No other measurement on this machine meanwhile, by whichever process; after `PATIENCE` seconds all the same.

    Linux's abstract names of sockets leave no file, and are free again when their holder ends, however it does.
    """
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                held.bind(_NAME)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    break
                time.sleep(_PAUSE)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection inside."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
