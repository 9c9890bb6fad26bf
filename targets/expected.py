"""The latency model in expectation: the same sum of rooflines, with gradients.

It equals the prediction where probabilities are 0 or 1, but for two things. Output channels are not padded to lanes:
that would be steps without a slope, and the expectation is up to one padding per kernel below the prediction. What a
fit has learned, and whether data fit into the cache, is looked up at the expected sizes and is constant to gradients:
these are the roofline's, which never fall with what is kept.
"""

import numpy as np
import torch
from torch import Tensor

from compactor.ir.expected import ExpectedKernels
from compactor.ir.kernels import KINDS
from compactor.targets import correction, model
from compactor.targets.profile import Profile


def expected_ms(
    profile: Profile, kernels: ExpectedKernels, precision: str, learned: correction.Correction | None
) -> Tensor:
    """Expected milliseconds of the kernels and the call: a float64 scalar.

    Raises `UnsupportedError` for a precision the device has not.
    """
    model.check(profile, precision)
    kind = torch.tensor([KINDS.index(k) for k in kernels.kinds], dtype=torch.long)
    rate, width = (torch.from_numpy(per_kind)[kind] for per_kind in model.per_kind(profile, precision))
    activations = (kernels.inputs + kernels.outputs) * width
    held = torch.where(kind == KINDS.index("embedding"), kernels.outputs, kernels.weights) * width
    memory = _seconds(profile, activations, activations) + _seconds(profile, held, (kernels.keep * held).sum())
    roof = torch.maximum(2 * kernels.macs / rate, memory / profile.model.memory)
    times, call = profile.model.floor_us + roof * 1e6, profile.model.call_us
    if learned is not None:
        fused = _fused_times(profile, kernels.fused)
        given = _rows(kernels, kind, times, call, fused)
        factor, count = torch.from_numpy(learned.mean(given) / given.base), len(kind)
        times, call = times * factor[:count], float(factor[count] * given.base[count])
        owner, epilogue = kernels.fused.nonzero(as_tuple=True)
        times = times.index_add(0, owner, fused[owner, epilogue] * factor[count + 1 :])
    return ((kernels.keep * times).sum() + call) / 1e3


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
