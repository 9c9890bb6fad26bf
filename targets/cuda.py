"""The `cuda` profile with the figures of the GPU that is here: operations per clock x processors x clock."""

from typing import Any

from compactor.gpu import Gpu
from compactor.targets.profile import Profile

OPERATIONS: dict[int, tuple[int, int]] = {
    70: (128, 1024),
    75: (128, 1024),
    80: (128, 2048),
    86: (256, 1024),
    87: (256, 2048),
    89: (256, 1024),
    90: (256, 4096),
    100: (256, 8192),
    120: (256, 1024),
}
"""By compute capability, float32 on CUDA cores and dense float16 on tensor cores, a MAC counting two.

CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions" (64 or 128 float32 a clock), and NVIDIA's
architecture whitepapers (V100, Turing, A100, GA102, Ada, H100, Blackwell). GeForce cards reach half of the float16
figure where sums are float32. Not confirmed row by row.
"""
_OLDEST = (128, 128)
"""Without tensor cores."""


def detected(profile: Profile, found: Gpu) -> Profile:
    """Peaks, memory and precisions of this GPU; one newer than the table counts as the newest in it."""
    known = [capability for capability in OPERATIONS if capability <= found.capability]
    float32, float16 = OPERATIONS[max(known)] if known else _OLDEST
    rate = found.processors * found.ghz / 1e3
    update: dict[str, Any] = {"peak_tops": {"float32": float32 * rate, "float16": float16 * rate}}
    memory = profile.memory.model_copy(update={"bandwidth_gbs": found.gbs, "capacity_gb": found.gb})
    return profile.model_copy(update={**update, "memory": memory})
