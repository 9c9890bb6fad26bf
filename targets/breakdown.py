"""Where a predicted latency goes, kernel by kernel, and what of it is only guessed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compactor.ir.kernels import UNKNOWN, Kernel
from compactor.latency import Bound, KernelTime, Latency
from compactor.targets import model
from compactor.targets.profile import Profile

UNMODELLED = 10.0
"""An op without a model may take anything from nothing to this many times the time of its traffic: a convention."""

_BOUNDS: tuple[Bound, ...] = ("launch", "compute", "memory")
_NAMED = 8


def breakdown(
    profile: Profile, kernels: Sequence[Kernel], precision: str, times: NDArray[np.float64]
) -> list[KernelTime]:
    """Bytes and bound of each kernel beside its predicted microseconds, ``times``.

    Raises `UnsupportedError` for a precision the device has not.
    """
    parts = model.kernel_parts(profile, kernels, precision)
    highest = np.stack([np.full(len(kernels), parts.floor), parts.compute, parts.memory]).argmax(axis=0)
    rows = zip(kernels, times.tolist(), parts.bytes.tolist(), highest.tolist(), strict=True)
    return [KernelTime(kernel, us, round(size), _BOUNDS[bound]) for kernel, us, size, bound in rows]


def widened(found: Latency, floor: float, kernels: Sequence[Kernel], times: NDArray[np.float64]) -> Latency:
    """The prediction with room for kernels of unknown kind, and a warning that names them.

    ``floor`` is in ms, ``times`` are the predicted microseconds of each kernel.

    They count as their traffic. Of that time the low end of the interval counts nothing, never less than the floor,
    and the high end `UNMODELLED` times as much.
    """
    unknown = [k for k in kernels if k.kind == UNKNOWN]
    if not unknown or found.low is None or found.high is None:
        return found
    guessed = sum(t for k, t in zip(kernels, times.tolist(), strict=True) if k.kind == UNKNOWN)
    share = guessed / 1e3 / found.p50
    names = ", ".join(k.node for k in unknown[:_NAMED]) + (", ..." if len(unknown) > _NAMED else "")
    return replace(
        found,
        low=max(found.low * (1 - share), min(found.low, floor)),
        high=found.high * (1 + (UNMODELLED - 1) * share),
        warning=f"no model for {len(unknown)} of {len(kernels)} kernels: {names}",
    )
