"""Fits each family's latency-model parameters to published latencies: ``python -m benchmarks.latency_model.fit``.

Prints the parameters, the residual of every point, and the errors with one network and with one device left out.
``--write`` also writes them, with the calibrated intervals, to ``targets/profiles/families.toml``.
"""

import argparse
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.latency_model import calibration
from benchmarks.latency_model.families import FAMILIES, Nested
from benchmarks.latency_model.networks import network
from compactor.ir.kernels import Kernel
from compactor.targets.model import Work, latency_ms, parts, work
from compactor.targets.profile import Profile

Floats = NDArray[np.float64]
DATA: dict[str, Any] = tomllib.loads((Path(__file__).parent / "published.toml").read_text())


@dataclass(frozen=True)
class Point:
    """One published latency, milliseconds."""

    device: str
    network: str
    precision: str
    ms: float
    source: str

    @property
    def architecture(self) -> str:
        """The network's name without its size: ``yolo``, ``bert``, ``resnet``, ``mobilenetv``."""
        return "".join(takewhile(str.isalpha, self.network))


def points(family: str) -> list[Point]:
    """All published latencies on devices of a family."""
    return [
        Point(device, name, precision, ms, table["source"])
        for table in DATA["tables"]
        for device, rows in table["rows"].items()
        if DATA["devices"][device]["family"] == family
        for name, values in rows.items()
        for precision, ms in zip(table["precisions"], values, strict=True)
    ]


def profile(device: str, model: Nested) -> Profile:
    """The profile of a published device under these model parameters."""
    facts = DATA["devices"][device]
    memory = {"bandwidth_gbs": facts["bandwidth"]}
    memory |= {k: facts[k] for k in ("cache_mb", "cache_gbs") if k in facts}
    fixed = {"precisions": list(facts["peak"]), "backend": "onnx", "runtime": "-", "family": facts["family"]}
    source = {"covers": ["peak_tops", "memory", "model"], "text": "published.toml"}
    return Profile.model_validate(
        {"schema": 1, "name": device, "description": "", "peak_tops": facts["peak"], "memory": memory, "model": model}
        | fixed
        | {"sources": [source]}
    )


def parameters(family: str, x: Sequence[float] | Floats) -> Nested:
    """The ``[model]`` table for a vector of log parameters; ``python`` is the timing overhead of a source."""
    chosen = FAMILIES[family]
    model: Nested = {"lanes": chosen.lanes, "interval": 2.0, "kinds": {}, "efficiency": {}}
    for key, value in chosen.fixed.items():
        model[key] = dict(value) if isinstance(value, dict) else value
    for item, value in zip(chosen.free, np.exp(x), strict=True):
        holder = model
        for key in item.path[:-1]:
            holder = holder.setdefault(key, {})
        holder[item.path[-1]] = min(float(value), item.highest)
    if "attention" in model["kinds"]:
        model["kinds"]["matmul"] = model["kinds"]["attention"]
    known = max(model["efficiency"].values())
    model["efficiency"] = {p: model["efficiency"].get(p, known) for p in chosen.lanes}
    return model


def predict(point: Point, model: Nested, kernels: Sequence[Kernel]) -> float:
    """Milliseconds, with the overhead of timing through Python where the source has it."""
    return latency_ms(profile(point.device, _clean(model)), kernels, point.precision) + _python(point, model)


def fit(family: str, data: list[Point]) -> tuple[Floats, Callable[[Point], float]]:
    """Log parameters, and the log residual of a point under them. Without data: the priors."""
    free = FAMILIES[family].free
    prior = np.log([f.prior for f in free])
    spread = np.array([f.spread for f in free])

    def cost(x: Floats) -> Floats:
        return np.concatenate([_residuals(family, x, data) / 0.15, (x - prior) / spread])

    highest = np.log([f.highest for f in free]) + 1e-6
    bounds = (np.full(len(free), -20.0), highest)
    x = least_squares(cost, prior, bounds=bounds, loss="soft_l1").x if data else prior
    return x, lambda point: float(_residuals(family, x, [point])[0])


def left_out(family: str, *keys: str) -> dict[Point, float]:
    """Log residual of every point under a fit without all points that share one of ``keys`` with it.

    ``keys``: network, device, architecture. Where nothing remains (a family with a single network) the priors predict.
    """
    data, fits = points(family), {}
    for point in data:
        held = tuple(getattr(point, key) for key in keys)
        if held not in fits:
            rest = [p for p in data if all(getattr(p, key) != value for key, value in zip(keys, held, strict=True))]
            fits[held] = fit(family, rest)[1]
    return {p: fits[tuple(getattr(p, key) for key in keys)](p) for p in data}


def fitted_targets(family: str) -> list[str]:
    """The profiles of devices whose latencies the family was fitted to."""
    devices = dict.fromkeys(p.device for p in points(family))
    return [DATA["devices"][d]["target"] for d in devices if "target" in DATA["devices"][d]]


def report(family: str, by_network: dict[Point, float], by_both: dict[Point, float]) -> Nested:
    """Print one family's fit and return its ``[model]``, without the interval."""
    data = points(family)
    x, residual = fit(family, data)
    model = parameters(family, x)
    own = np.array([residual(p) for p in data])
    rms = f"rms {np.sqrt(np.mean(own**2)):.3f}" if data else "priors only"
    print(f"\n## {family}: {len(data)} points, {rms}")
    for key, value in model.items():
        print(f"  {key} = {value}")
    for key, errors in (("network", by_network), ("network and device", by_both)):
        if errors:
            logs = np.array(list(errors.values()))
            median, wide = np.median(np.abs(np.expm1(logs))), np.exp(np.quantile(np.abs(logs), 0.9))
            print(f"  one {key} left out: median {median:.1%}, rms {np.sqrt(np.mean(logs**2)):.3f}, 90 % x{wide:.3f}")
    for point, error in zip(data, own, strict=True):
        print(
            f"  {point.device:24s} {point.network:24s} {point.precision:9s} {point.ms:8.3f} ms  {np.expm1(error):+.1%}"
            f"  left out {np.expm1(by_network[point]):+.1%}"
        )
    return model


def _residuals(family: str, x: Floats, data: Sequence[Point]) -> Floats:
    model = parameters(family, x)
    profiles = {device: profile(device, _clean(model)) for device in {p.device for p in data}}
    found = np.empty(len(data))
    for i, p in enumerate(data):
        kernels = parts(profiles[p.device], _work(p.network, model["lanes"][p.precision]), p.precision).total
        found[i] = (kernels.sum() + model.get("call_us", 0)) / 1e3 + _python(p, model)
    return np.log(found / np.array([p.ms for p in data]))


@cache
def _work(name: str, lanes: int) -> Work:
    return work(network(name), lanes)


def _clean(model: Nested) -> Nested:
    return {k: v for k, v in model.items() if k != "python"}


def _python(point: Point, model: Nested) -> float:
    return model.get("python", 0) / 1e3 if point.source == "ultralytics" else 0.0


def main() -> None:
    """Fit and print every family; write the result where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="also write targets/profiles/families.toml")
    write = parser.parse_args().write
    by_network = {family: left_out(family, "network") for family in FAMILIES}
    by_both = {family: left_out(family, "network", "device") for family in FAMILIES}
    stated = calibration.intervals(
        *({f: list(r.values()) for f, r in found.items()} for found in (by_network, by_both))
    )
    models = {family: report(family, by_network[family], by_both[family]) for family in FAMILIES}
    for family, interval in stated.items():
        print(f"{family:18s} x{interval.fitted}, other devices x{interval.other}, {interval.points} points")
    if write:
        calibration.write(models, stated, {family: fitted_targets(family) for family in FAMILIES})


if __name__ == "__main__":
    main()
