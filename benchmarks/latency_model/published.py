"""Predictions against published latencies that the fit has not seen: ``python -m benchmarks.latency_model.published``.

Every point is predicted by parameters fitted without its network, in the interval that the profiles state for its
family. Writes ``results/latency_published.json``; the exit status is 1 when a bar is missed.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.facts import facts, write
from benchmarks.latency_model.calibration import intervals, pool, quantile
from benchmarks.latency_model.families import FAMILIES
from benchmarks.latency_model.fit import DATA, Point, left_out
from compactor.targets.profile import family_model, other_device_model

MOST_MEDIAN = 15.0
COVERAGE = (85.0, 97.0)
Residuals = Mapping[Point, float]
Fitted = Mapping[str, Residuals]


def summary(residuals: Residuals, width: Callable[[Point], float], unseen: Callable[[Point], float]) -> dict[str, Any]:
    """Errors in percent of the published latency, and the percentage of points inside ``width`` and ``unseen``."""
    if not residuals:
        return {"points": 0}
    errors = 100 * np.abs(np.expm1(np.array(list(residuals.values()))))
    return {
        "points": len(residuals),
        "networks": len({p.network for p in residuals}),
        "devices": len({p.device for p in residuals}),
        "median_error_percent": round(float(np.median(errors)), 1),
        "p90_error_percent": round(float(np.quantile(errors, 0.9)), 1),
        "worst_error_percent": round(float(errors.max()), 1),
        "coverage_percent": _share(abs(r) <= np.log(width(p)) for p, r in residuals.items()),
        "coverage_unseen_percent": _share(abs(r) <= unseen(p) for p, r in residuals.items()),
    }


def without_network(residuals: Fitted) -> Callable[[Point], float]:
    """Half-width (log) of a point's interval, calibrated like the stated one but without the point's network."""

    def width(point: Point) -> float:
        # The family's own points decide whether it has enough of them; only then are those of the network left out.
        kept = pool({f: list(found.items()) for f, found in residuals.items()}, _family(point))
        return quantile([r for p, r in kept if p.network != point.network])

    return width


def evaluate(by_network: Fitted, by_both: Fitted, by_architecture: Fitted) -> dict[str, Any]:
    """The result: overall, by family and by point. ``by_both``: the device was left out as well as the network."""

    def stated(point: Point) -> float:
        return family_model(_family(point)).interval

    def other(point: Point) -> float:
        return other_device_model(_family(point)).interval

    unseen, unseen_both = without_network(by_network), without_network(by_both)
    fresh = intervals(*({f: list(r.values()) for f, r in found.items()} for found in (by_network, by_both)))
    families = {
        family: {
            "interval": {"stated": family_model(family).interval, "fitted": fresh[family].fitted},
            "interval_other": {"stated": other_device_model(family).interval, "fitted": fresh[family].other},
            "network_left_out": summary(found, stated, unseen),
            "network_and_device_left_out": summary(by_both[family], other, unseen_both),
            "architecture_left_out": summary(by_architecture[family], stated, unseen),
        }
        for family, found in by_network.items()
    }
    everything = _merged(by_network)
    return {
        "overall": {
            "network_left_out": summary(everything, stated, unseen),
            "network_and_device_left_out": summary(_merged(by_both), other, unseen_both),
            "architecture_left_out": summary(_merged(by_architecture), stated, unseen),
        },
        "families": families,
        "points": [
            {
                "device": p.device,
                "network": p.network,
                "precision": p.precision,
                "published_ms": p.ms,
                "predicted_ms": round(p.ms * float(np.exp(r)), 3),
                "error_percent": round(100 * float(np.expm1(r)), 1),
                "inside": bool(abs(r) <= np.log(stated(p))),
                "source": p.source,
            }
            for p, r in everything.items()
        ],
    }


def missed(result: Mapping[str, Any]) -> list[str]:
    """The bars that are missed, and intervals that the profiles do not state as they were fitted."""
    overall, (low, high) = result["overall"]["network_left_out"], COVERAGE
    found = []
    if overall["median_error_percent"] > MOST_MEDIAN:
        found.append(f"median error {overall['median_error_percent']} %, at most {MOST_MEDIAN} %")
    if not low <= overall["coverage_percent"] <= high:
        found.append(f"coverage {overall['coverage_percent']} %, not in {low} to {high} %")
    for family, one in result["families"].items():
        for key in ("interval", "interval_other"):
            if one[key]["stated"] != one[key]["fitted"]:
                found.append(f"{family}: {key} x{one[key]['stated']}, the fit says x{one[key]['fitted']}")
    return found


def _share(inside: Iterable[bool]) -> float:
    return round(100 * float(np.mean(list(inside))), 1)


def _family(point: Point) -> str:
    return str(DATA["devices"][point.device]["family"])


def _merged(residuals: Fitted) -> Residuals:
    return {p: r for found in residuals.values() for p, r in found.items()}


def main() -> int:
    """Run, print a line per family, and write the result."""
    by_network = {family: left_out(family, "network") for family in FAMILIES}
    by_both = {family: left_out(family, "network", "device") for family in FAMILIES}
    by_architecture = {family: left_out(family, "architecture") for family in FAMILIES}
    result = evaluate(by_network, by_both, by_architecture)
    failures = missed(result)
    for name, one in {**result["families"], "overall": result["overall"]}.items():
        for key in ("network_left_out", "network_and_device_left_out", "architecture_left_out"):
            found = one[key]
            if found["points"]:
                print(
                    f"{name:18s} {key:28s} {found['points']:4d} points  median {found['median_error_percent']:5.1f} %  "
                    f"p90 {found['p90_error_percent']:5.1f} %  inside {found['coverage_percent']:5.1f} %  "
                    f"unseen {found['coverage_unseen_percent']:5.1f} %"
                )
    bars = {"median_error_percent": MOST_MEDIAN, "coverage_percent": COVERAGE}
    path = write("latency_published", {**facts(0), "bars": bars, "missed": failures, **result})
    print(path, *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
