"""Calibrated intervals and the bars of the published points, on made-up residuals."""

import math
from typing import Any

import pytest

from benchmarks.latency_model import published
from benchmarks.latency_model.calibration import FEWEST, factor, intervals, pool, quantile
from benchmarks.latency_model.families import FAMILIES
from benchmarks.latency_model.fit import Point, fit, points
from compactor.targets.profile import family_model

FEW: dict[str, dict[Point, float]] = {**{family: {} for family in FAMILIES}, "arm": dict.fromkeys(points("arm"), 0.1)}


def test_conformal_quantile() -> None:
    assert quantile([-0.5, 0.1, *[0.2] * 7]) == 0.5  # the 9th of 9
    assert quantile([*[0.1] * 18, -0.9]) == 0.1  # the 18th of 19
    assert quantile([0.1, -0.3]) == 0.3


def test_a_new_score_lies_within_in_nine_of_ten() -> None:
    scores = [i / 100 for i in range(100)]
    inside = [one <= quantile([s for s in scores if s != one]) for one in scores]
    assert 90 <= sum(inside) <= 91


def test_few_points_share_an_interval() -> None:
    residuals = {"many": [0.01] * FEWEST, "few": [0.2], "none": []}
    assert pool(residuals, "few") == pool(residuals, "none") == [0.2]
    found = intervals(residuals, {**residuals, "many": [0.3] * FEWEST})
    assert found["many"].fitted == factor([0.01]) and found["many"].other == factor([0.3])
    assert found["few"].fitted == found["none"].fitted == factor([0.2])
    assert math.exp(0.2) <= factor([0.2]) <= math.exp(0.2) + 0.01


def test_without_data_the_priors_remain() -> None:
    x, _ = fit("intel-gpu", [])
    assert list(map(math.exp, x)) == pytest.approx([f.prior for f in FAMILIES["intel-gpu"].free])


def result(error: float, many: float) -> dict[str, Any]:
    """Residuals of ``error``, one in eight of ``many``, on the NVIDIA points."""
    found = {p: many if i % 8 == 0 else error for i, p in enumerate(points("nvidia"))}
    every = {**FEW, "nvidia": found}
    return published.evaluate(every, every, every)


def test_bars() -> None:
    wide = math.log(family_model("nvidia").interval)
    good = published.missed(result(0.05, 2 * wide))
    assert not any("median" in m or "coverage" in m for m in good)
    assert any("the fit says" in m for m in good)
    assert any("median error" in m for m in published.missed(result(wide * 0.99, 2 * wide)))
    assert any("coverage 100.0" in m for m in published.missed(result(0.05, 0.05)))
    assert any("coverage 2." in m for m in published.missed(result(2 * wide, 2 * wide)))


def test_points_say_what_was_predicted() -> None:
    first = result(0.0, 0.5)["points"][0]
    assert first["predicted_ms"] == pytest.approx(first["published_ms"] * math.exp(0.5), rel=1e-2)
    assert not first["inside"] and first["source"] == "ultralytics"
