"""The latency model: per kernel a floor plus a roofline, summed.

A kernel takes ``floor + max(compute, memory)``: the share of the peak it reaches grows with its work, as
``work / (work + floor)``. The floor is what a runtime spends on any kernel (launch, scheduling, synchronisation);
efficiencies are fitted to published latencies. Roofline: Williams et al., CACM 2009; summing fused kernels: nn-Meter,
MobiSys 2021.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compactor.errors import UnsupportedError
from compactor.ir.kernels import KINDS, Kernel
from compactor.targets.profile import Profile

VERSION = 3
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_QUANTIZED = ("conv", "depthwise", "linear", "matmul")
UNFUSED = 0.1
"""What share of pointwise ops is assumed to run by itself, before a fit tells."""
_EMBEDDING = KINDS.index("embedding")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """Kernels as arrays, one row each: kind number, operations with padding, elements read and written, weights."""

    kind: NDArray[np.intp]
    operations: Floats
    activations: Floats
    weights: Floats


@dataclass(frozen=True)
class Parts:
    """Microseconds of each kernel: the floor under it, and its two roofs, of which the higher counts; and its bytes."""

    floor: float
    compute: Floats
    memory: Floats
    bytes: Floats

    @property
    def total(self) -> Floats:
        """Microseconds."""
        return self.floor + np.maximum(self.compute, self.memory)


def work(kernels: Sequence[Kernel], lanes: int) -> Work:
    """Arrays of the kernels' work, output channels padded to multiples of ``lanes``."""
    rows = [(KINDS.index(k.kind), k.macs, k.inputs, k.outputs, k.weights, k.columns) for k in kernels]
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    kind, columns = table[:, 0].astype(np.intp), table[:, 5]
    # Depthwise products have one column each: channels are padded there too, but over groups.
    wide = columns > 1
    padded = np.where(wide, np.ceil(columns / lanes) * lanes, 1)
    # Divided first: all of it stays exact, so that more work never comes out faster by rounding.
    operations = 2 * (table[:, 1] / np.where(wide, columns, 1)) * padded
    weights = np.where(kind == _EMBEDDING, table[:, 3], table[:, 4])
    return Work(kind, operations, table[:, 2] + table[:, 3], weights)


def kernel_parts(profile: Profile, kernels: Sequence[Kernel], precision: str) -> Parts:
    """What each kernel's time is made of. Raises `UnsupportedError` for a precision the device has not."""
    check(profile, precision)
    return parts(profile, work(kernels, profile.model.lanes.get(precision, 1)), precision)  # type: ignore[call-overload]


def parts(profile: Profile, load: Work, precision: str) -> Parts:
    """What the time of each row of ``load`` is made of, for callers that predict the same work many times."""
    model = profile.model
    rate, width = per_kind(profile, precision)
    compute = load.operations / rate[load.kind]
    activations, weights = load.activations * width[load.kind], load.weights * width[load.kind]
    memory = _seconds(profile, activations, activations) + _seconds(profile, weights, weights.sum())
    return Parts(model.floor_us, compute * 1e6, memory / model.memory * 1e6, activations + weights)


def fused_times(profile: Profile, fused: Floats) -> Floats:
    """Microseconds that pointwise ops on these numbers of elements may cost where a runtime fuses most of them."""
    traffic = _seconds(profile, 8 * fused, 8 * fused) / profile.model.memory * 1e6
    return UNFUSED * np.where(fused > 0, profile.model.floor_us + traffic, 0)


def kernel_times(profile: Profile, kernels: Sequence[Kernel], precision: str) -> Floats:
    """Predicted microseconds of each kernel. Raises `UnsupportedError` for a precision the device has not."""
    return kernel_parts(profile, kernels, precision).total


def latency_ms(profile: Profile, kernels: Sequence[Kernel], precision: str) -> float:
    """Predicted milliseconds of these kernels, one after the other."""
    return float(kernel_times(profile, kernels, precision).sum() + profile.model.call_us) / 1e3


def floor_ms(profile: Profile, kernels: Sequence[Kernel]) -> float:
    """Milliseconds below which these kernels cannot get in any precision: floors, peaks and bandwidth only.

    Detected peaks rest on an assumed clock, so there the bound is two thirds of that.
    """
    load = work(kernels, 1)
    peak = max(profile.peak_tops[p] for p in profile.precisions) * 1e12
    width = min(BYTES[p] for p in profile.precisions)
    speed = max(profile.memory.bandwidth_gbs, profile.memory.cache_gbs or 0) * 1e9
    roof = np.maximum(load.operations / peak, (load.activations + load.weights) * width / speed)
    least = profile.model.floor_us / profile.model.interval
    return float(np.maximum(roof * 1e6, least).sum()) / 1e3 * (2 / 3 if profile.detect else 1)


def companion(profile: Profile, precision: str) -> str:
    """The precision of what stays unquantized in an ``int8`` model: the fastest other one."""
    others = [p for p in profile.precisions if p != "int8"]
    return max(others, key=lambda p: profile.peak_tops[p]) if precision == "int8" and others else precision


def check(profile: Profile, precision: str) -> None:
    """Raises `UnsupportedError` for a precision the device has not."""
    if precision not in profile.precisions:
        known = ", ".join(profile.precisions)
        raise UnsupportedError(f"target {profile.name} does not run {precision!r} natively", f"it runs {known}")


def per_kind(profile: Profile, precision: str) -> tuple[Floats, Floats]:
    """Operations per second and bytes per element of each kernel kind."""
    other = companion(profile, precision)
    chosen = [precision if kind in _QUANTIZED else other for kind in KINDS]
    efficiency, kinds = profile.model.efficiency, profile.model.kinds
    rates = [
        profile.peak_tops[p] * 1e12 * efficiency[p] * kinds.get(kind, 1.0)  # type: ignore[index, call-overload]
        for p, kind in zip(chosen, KINDS, strict=True)
    ]
    return np.array(rates), np.array([BYTES[p] for p in chosen], dtype=np.float64)


def _seconds(profile: Profile, size: Floats, working_set: Floats | np.float64) -> Floats:
    """Seconds to move ``size`` bytes: from the cache where the working set fits into it."""
    memory = profile.memory
    slow = size / (memory.bandwidth_gbs * 1e9)
    if memory.cache_gbs is None:
        return slow
    return np.where(working_set <= memory.cache_mb * 1e6, size / (memory.cache_gbs * 1e9), slow)
