"""The latency model in expectation: the same sum of rooflines, with gradients.

It equals the prediction where probabilities are 0 or 1. Output channels are padded to lanes in expectation, which has a
slope where their number is uncertain: it pays to leave out a vector, not a channel. How uncertain it is, what a fit has
learned, and whether data fit into the cache is looked up at the given probabilities and is constant to gradients: these
are the roofline's, which never fall with what is kept.
"""

import numpy as np
import torch
from torch import Tensor

from compactor.ir.expected import ExpectedKernels
from compactor.ir.kernels import KINDS
from compactor.targets import correction, model
from compactor.targets.profile import Profile

_CERTAIN, _FAR = 0.05, 6.0
"""Columns of spread at least, so that whole numbers are exact; spreads beyond which nothing happens."""


def expected_ms(
    profile: Profile, kernels: ExpectedKernels, precision: str, learned: correction.Correction | None
) -> Tensor:
    """Expected milliseconds of the kernels and the call: a float64 scalar.

    Raises `UnsupportedError` for a precision the device has not.
    """
    model.check(profile, precision)
    kind = torch.tensor([KINDS.index(k) for k in kernels.kinds], dtype=torch.long)
    rate, width = (torch.from_numpy(per_kind)[kind] for per_kind in model.per_kind(profile, precision))
    operations = 2 * kernels.macs * _padding(kernels, profile.model.lanes.get(precision, 1))  # type: ignore[call-overload]
    activations = (kernels.inputs + kernels.outputs) * width
    held = torch.where(kind == KINDS.index("embedding"), kernels.outputs, kernels.weights) * width
    memory = _seconds(profile, activations, activations) + _seconds(profile, held, (kernels.keep * held).sum())
    roof = torch.maximum(operations / rate, memory / profile.model.memory)
    times, call = profile.model.floor_us + roof * 1e6, profile.model.call_us
    if learned is not None:
        fused = _fused_times(profile, kernels.fused)
        given = _rows(kernels, kind, times, call, fused)
        factor, count = torch.from_numpy(learned.mean(given) / given.base), len(kind)
        times, call = times * factor[:count], float(factor[count] * given.base[count])
        owner, epilogue = kernels.fused.nonzero(as_tuple=True)
        times = times.index_add(0, owner, fused[owner, epilogue] * factor[count + 1 :])
    return ((kernels.keep * times).sum() + call) / 1e3


def _padding(kernels: ExpectedKernels, lanes: int) -> Tensor:
    """The expected number of columns in whole vectors, over the expected number of columns.

    The number is taken as normal: a vector is there if there is a column more than those before it hold.
    """
    columns, spread = kernels.columns, kernels.spread.clamp(min=_CERTAIN)
    full = ((columns.detach() - _FAR * spread) / lanes).floor().clamp(min=0)
    open_ = torch.arange(int((2 * _FAR * spread / lanes).max()) + 2)
    before = lanes * (full[:, None] + open_)
    there = torch.special.ndtr((columns[:, None] - before - 0.5) / spread[:, None])
    padded = lanes * (full + there.sum(1))
    return torch.where(columns > 1, padded / columns.clamp(min=1), 1.0)


def _seconds(profile: Profile, size: Tensor, working_set: Tensor) -> Tensor:
    """Seconds to move ``size`` bytes: from the cache where the working set fits into it."""
    memory = profile.memory
    slow = size / (memory.bandwidth_gbs * 1e9)
    if memory.cache_gbs is None:
        return slow
    return torch.where(working_set <= memory.cache_mb * 1e6, size / (memory.cache_gbs * 1e9), slow)


def _fused_times(profile: Profile, fused: Tensor) -> Tensor:
    """`compactor.targets.model.fused_times` with gradients."""
    traffic = _seconds(profile, 8 * fused, 8 * fused) / profile.model.memory * 1e6
    return model.UNFUSED * torch.where(fused > 0, profile.model.floor_us + traffic, 0.0)


def _rows(kernels: ExpectedKernels, kind: Tensor, times: Tensor, call_us: float, fused_us: Tensor) -> correction.Rows:
    k = kernels
    sizes = torch.stack([k.rows, k.columns, k.depth, k.groups, k.inputs, k.outputs, k.weights], 1)
    table: np.ndarray[tuple[int, int], np.dtype[np.float64]] = sizes.detach().numpy()
    fused = kernels.fused.detach().numpy()
    return correction.table_rows(
        kind.tolist(), table, times.detach().numpy(), call_us, fused, fused_us.detach().numpy()
    )
