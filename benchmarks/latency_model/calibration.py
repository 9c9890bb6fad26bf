"""Intervals from left-out residuals, by conformal prediction, and ``families.toml`` with fits and intervals.

The score of a point is the absolute log of predicted over published milliseconds, its network left out of the fit; for
a device that no fit has seen, its network and its device. Of n exchangeable scores the ceil(0.9 (n + 1))-th smallest
bounds a new one with probability 0.9 (Vovk et al. 2005; with left-out residuals: Barber et al., Annals of Statistics
2021). Below nine points no such score exists, so families with fewer share the scores of all of them: each gets the
interval of a device about which hardly anything was published.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from benchmarks.latency_model.families import FAMILIES, Nested
from compactor.targets.profile import FOLDER

T = TypeVar("T")
LEVEL = 0.9
FEWEST = 9

HEADER = """\
# Written by `python -m benchmarks.latency_model.fit --write`: latency-model parameters by family, fitted to published
# latencies (benchmarks/latency_model/published.toml). interval: the factor that holds 90 %, calibrated on points whose
# network was left out of the fit; for devices that are not among `fitted`, on points whose device was left out as well
# (`other.interval`). error: rms log error of the former. What few points cannot tell is assumed
# (benchmarks/latency_model/families.py); see docs/targets.md.
"""


@dataclass(frozen=True)
class Interval:
    """Factors around a prediction, for a device of the fit and for an ``other``; the family's own ``points``, rms."""

    fitted: float
    other: float
    points: int
    error: float


def quantile(scores: Sequence[float]) -> float:
    """The conformal 90 % quantile of absolute log residuals; the largest where they are too few for one."""
    ordered = sorted(abs(s) for s in scores)
    return ordered[min(math.ceil(LEVEL * (len(ordered) + 1)), len(ordered)) - 1]


def intervals(by_network: Mapping[str, Sequence[float]], by_both: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Each family's intervals from the left-out log residuals of all families."""
    result = {}
    for family, found in by_network.items():
        fitted = factor(pool(by_network, family))
        other = max(fitted, factor(pool(by_both, family)))
        error = float(np.sqrt(np.mean(np.square(found or pool(by_network, family)))))
        result[family] = Interval(fitted, other, len(found), error)
    return result


def pool(residuals: Mapping[str, Sequence[T]], family: str) -> list[T]:
    """The residuals that calibrate a family: its own, or those of all families with few."""
    if len(residuals[family]) >= FEWEST:
        return list(residuals[family])
    return [score for found in residuals.values() if len(found) < FEWEST for score in found]


def factor(scores: Sequence[float]) -> float:
    """The interval's factor, rounded up to two decimals."""
    return math.ceil(math.exp(quantile(scores)) * 100) / 100


def write(models: Mapping[str, Nested], stated: Mapping[str, Interval], fitted: Mapping[str, Sequence[str]]) -> None:
    """Write ``families.toml``; ``fitted`` are the profiles of the devices that each family was fitted to."""
    parts = [HEADER, *(_table(family, models[family], stated[family], fitted[family]) for family in models)]
    (FOLDER / "families.toml").write_text("\n".join(parts))


def _table(family: str, model: Nested, interval: Interval, fitted: Sequence[str]) -> str:
    names = ("floor_us", "call_us", "efficiency", "kinds", "memory", "lanes")
    lines = [
        f"[{family}]",
        f"fitted = {json.dumps(list(fitted))}",
        f"other = {{ interval = {interval.other:.2f} }}",
        "",
    ]
    lines += [f"[{family}.model]", *(f"{name} = {_value(model[name])}" for name in names if name in model)]
    lines += [f"interval = {interval.fitted:.2f}", f"points = {interval.points}", f"error = {interval.error:.3f}", ""]
    chosen = FAMILIES[family]
    lines += [f"[[{family}.sources]]", 'covers = ["model"]', f'text = "{chosen.text}"']
    return "\n".join([*lines, *([] if chosen.confirmed else ["confirmed = false"])]) + "\n"


def _value(value: float | dict[str, float]) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    return f"{value:.3g}"
