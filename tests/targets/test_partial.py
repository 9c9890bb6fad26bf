"""Profiles on the scale of latencies: what timing costs is taken off, what was disturbed is not believed."""

import numpy as np
import pytest

from compactor.target import Part
from compactor.targets.partial import partial_sums

CALL, NODE = 40.0, 4.0


def _networks(count: int) -> tuple[list[list[Part]], list[list[float]]]:
    """Profiles in which every node looks ``NODE`` longer, and the true times."""
    generator = np.random.default_rng(0)
    times = [[float(t) for t in generator.uniform(5, 300, int(generator.integers(5, 40)))] for _ in range(count)]
    nodes = [[int(n) for n in generator.integers(1, 4, len(own))] for own in times]
    profiled = [
        [Part((i,), t + NODE * n, n) for i, (t, n) in enumerate(zip(own, count, strict=True))]
        for own, count in zip(times, nodes, strict=True)
    ]
    return profiled, times


def test_what_timing_costs_is_taken_off() -> None:
    profiled, times = _networks(12)
    us = np.array([sum(own) + CALL for own in times])
    for found in partial_sums(us, profiled):
        assert found.us == pytest.approx(times[found.network][found.kernels[0]], rel=0.05)


def test_a_disturbed_latency_is_not_believed_and_a_disturbed_profile_left_out() -> None:
    profiled, times = _networks(12)
    us = np.array([sum(own) + CALL for own in times])
    us[3] *= 3
    profiled[5] = [part._replace(us=5 * part.us) for part in profiled[5]]
    found = partial_sums(us, profiled)
    assert {f.network for f in found} == set(range(12)) - {5}
    slowed = sum(f.us for f in found if f.network == 3)
    assert slowed == pytest.approx(sum(times[3]), rel=0.15)


def test_without_profiles_there_are_no_parts() -> None:
    assert partial_sums(np.array([100.0]), [()]) == []
