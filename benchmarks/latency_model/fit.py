"""Fits each family's latency-model parameters to published latencies: ``python -m benchmarks.latency_model.fit``.

Prints the parameters, the residual of every point, and the errors with one network and with one device left out. The
figures in ``targets/profiles/families.toml`` and ``docs/targets.md`` come from here.
"""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.latency_model.networks import network
from compactor.ir.kernels import Kernel
from compactor.targets.model import latency_ms
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


@dataclass(frozen=True)
class Free:
    """A free parameter: where it goes in ``[model]``, its prior and how far (in log) it may be off."""

    path: tuple[str, ...]
    prior: float
    spread: float
    highest: float = 1e9


def _x86(float32: float, bfloat16: float, int8: float) -> list[Free]:
    return [
        Free(("floor_us",), 10, 1),
        Free(("call_us",), 20, 1),
        Free(("efficiency", "float32"), float32, 0.5, 1),
        Free(("efficiency", "bfloat16"), bfloat16, 0.7, 1),
        Free(("efficiency", "int8"), int8, 0.7, 1),
        Free(("kinds", "linear"), 0.9, 0.5, 1),
        Free(("kinds", "attention"), 0.3, 0.7, 1),
        Free(("kinds", "depthwise"), 0.2, 0.7, 1),
        Free(("memory",), 0.7, 0.3, 1),
    ]


FAMILIES: dict[str, tuple[dict[str, int], list[Free]]] = {
    "nvidia": (
        {"float32": 8, "float16": 8, "int8": 16},
        [
            Free(("floor_us",), 5, 1),
            Free(("efficiency", "float32"), 0.5, 0.5, 1),
            Free(("efficiency", "float16"), 0.5, 0.5, 1),
            Free(("efficiency", "int8"), 0.4, 0.5, 1),
            Free(("kinds", "linear"), 0.9, 0.5, 1),
            Free(("kinds", "attention"), 0.3, 0.7, 1),
            Free(("memory",), 0.7, 0.3, 1),
            Free(("python",), 800, 0.7),
        ],
    ),
    "x86": ({"float32": 16, "bfloat16": 16, "int8": 16}, _x86(0.7, 0.6, 0.5)),
    "x86-amx": ({"float32": 16, "bfloat16": 16, "int8": 16}, _x86(0.7, 0.2, 0.1)),
    "arm": (
        {"float32": 4, "int8": 4},
        [Free(("floor_us",), 15, 0.3), Free(("efficiency", "float32"), 0.5, 0.7, 1), Free(("memory",), 0.6, 0.7, 1)],
    ),
    "intel-npu": (
        {"float16": 16, "int8": 16},
        [Free(("floor_us",), 4, 0.7), Free(("call_us",), 60, 0.7), Free(("efficiency", "int8"), 0.4, 0.5, 1)],
    ),
}


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


def profile(device: str, model: dict[str, Any]) -> Profile:
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


def parameters(family: str, x: Sequence[float] | Floats) -> dict[str, Any]:
    """The ``[model]`` table for a vector of log parameters; ``python`` is the timing overhead of a source."""
    lanes, free = FAMILIES[family]
    model: dict[str, Any] = {"lanes": lanes, "interval": 2.0, "memory": 0.6, "kinds": {}, "efficiency": {}}
    for item, value in zip(free, np.exp(x), strict=True):
        holder = model
        for key in item.path[:-1]:
            holder = holder.setdefault(key, {})
        holder[item.path[-1]] = min(float(value), item.highest)
    kinds, efficiency = model["kinds"], model["efficiency"]
    kinds.setdefault("depthwise", 0.2)
    if "attention" in kinds:
        kinds["matmul"] = kinds["attention"]
    known = max(efficiency.values())
    model["efficiency"] = {p: efficiency.get(p, known) for p in lanes}
    return model


def predict(point: Point, model: dict[str, Any], kernels: Sequence[Kernel]) -> float:
    """Milliseconds, with the overhead of timing through Python where the source has it."""
    python = model.get("python", 0) if point.source == "ultralytics" else 0
    clean = {k: v for k, v in model.items() if k != "python"}
    return latency_ms(profile(point.device, clean), kernels, point.precision) + python / 1e3


def fit(family: str, data: list[Point]) -> tuple[Floats, Callable[[Point], float]]:
    """Log parameters, and the log residual of a point under them."""
    free = FAMILIES[family][1]
    prior = np.log([f.prior for f in free])
    spread = np.array([f.spread for f in free])

    def residual(x: Floats, point: Point) -> float:
        return float(np.log(predict(point, parameters(family, x), network(point.network)) / point.ms))

    def cost(x: Floats) -> Floats:
        return np.array([residual(x, p) / 0.15 for p in data] + list((x - prior) / spread))

    highest = np.log([f.highest for f in free]) + 1e-6
    solution = least_squares(cost, prior, bounds=(np.full(len(free), -20.0), highest), loss="soft_l1")
    return solution.x, lambda point: residual(solution.x, point)


def left_out(family: str, data: list[Point], key: str) -> Floats:
    """Log residuals of every point when all with the same ``key`` (device or network) were left out of the fit."""
    residuals = []
    for value in sorted({getattr(p, key) for p in data}):
        rest = [p for p in data if getattr(p, key) != value]
        if rest:
            _, residual = fit(family, rest)
            residuals += [residual(p) for p in data if getattr(p, key) == value]
    return np.array(residuals)


def report(family: str) -> None:
    """Print one family's fit."""
    data = points(family)
    x, residual = fit(family, data)
    own = np.array([residual(p) for p in data])
    print(f"\n## {family}: {len(data)} points, rms {np.sqrt(np.mean(own**2)):.3f}")
    for key, value in parameters(family, x).items():
        print(f"  {key} = {value}")
    for key in ("network", "device"):
        errors = left_out(family, data, key)
        if len(errors):
            rms, wide = np.sqrt(np.mean(errors**2)), np.exp(np.quantile(np.abs(errors), 0.9))
            print(f"  one {key} left out: rms {rms:.3f}, 90 % within a factor {wide:.3f}")
    for point, error in zip(data, own, strict=True):
        print(
            f"  {point.device:16s} {point.network:24s} {point.precision:9s} {point.ms:8.3f} ms  {np.expm1(error):+.1%}"
        )


if __name__ == "__main__":
    for name in FAMILIES:
        report(name)
