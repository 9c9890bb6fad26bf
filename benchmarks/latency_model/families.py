"""What is fitted per family of devices: free parameters with their priors, and values that are held fixed."""

from dataclasses import dataclass, field
from typing import Any

Nested = dict[str, Any]


@dataclass(frozen=True)
class Free:
    """A free parameter: where it goes in ``[model]``, its prior and how far (in log) it may be off."""

    path: tuple[str, ...]
    prior: float
    spread: float
    highest: float = 1e9


@dataclass(frozen=True)
class Family:
    """``fixed``: parts of ``[model]`` that the published points cannot tell. ``text``: its source in the profiles."""

    lanes: dict[str, int]
    free: tuple[Free, ...]
    text: str
    fixed: Nested = field(default_factory=dict)
    confirmed: bool = False


ASSUMED_KINDS = {"linear": 0.9, "attention": 0.3, "matmul": 0.3, "depthwise": 0.2}
X86_LANES = {"float32": 16, "bfloat16": 16, "int8": 16}


def _x86(float32: float, bfloat16: float, int8: float) -> tuple[Free, ...]:
    return (
        Free(("floor_us",), 10, 1),
        Free(("call_us",), 20, 1),
        Free(("efficiency", "float32"), float32, 0.5, 1),
        Free(("efficiency", "bfloat16"), bfloat16, 0.7, 1),
        Free(("efficiency", "int8"), int8, 0.7, 1),
        Free(("kinds", "linear"), 0.9, 0.5, 1),
        Free(("kinds", "attention"), 0.3, 0.7, 1),
        Free(("kinds", "depthwise"), 0.2, 0.7, 1),
        Free(("memory",), 0.7, 0.3, 1),
    )


_ARM = (Free(("floor_us",), 15, 0.3), Free(("efficiency", "float32"), 0.5, 0.7, 1), Free(("memory",), 0.6, 0.7, 1))
# No INT8 latency was published: half of what FP32 reaches of its peak, which makes INT8 twice as fast.
_ARM_FIXED = {"kinds": ASSUMED_KINDS, "efficiency": {"int8": 0.2}}
_ARM_OPENVINO_FIXED = {"kinds": ASSUMED_KINDS, "efficiency": {"int8": 0.4}}
# One prior for all accelerators with a compiler of their own: with a single published network it is all there is.
_NPU = (Free(("floor_us",), 4, 0.7), Free(("call_us",), 60, 0.7), Free(("efficiency", "int8"), 0.4, 0.5, 1))
_NPU_FIXED = {"kinds": ASSUMED_KINDS, "memory": 0.6}

FAMILIES: dict[str, Family] = {
    "nvidia": Family(
        {"float32": 8, "float16": 8, "int8": 16},
        (
            Free(("floor_us",), 5, 1),
            Free(("efficiency", "float32"), 0.5, 0.5, 1),
            Free(("efficiency", "float16"), 0.5, 0.5, 1),
            Free(("efficiency", "int8"), 0.4, 0.5, 1),
            Free(("kinds", "linear"), 0.9, 0.5, 1),
            Free(("kinds", "attention"), 0.3, 0.7, 1),
            Free(("memory",), 0.7, 0.3, 1),
            Free(("python",), 800, 0.7),
        ),
        "Fitted to Ultralytics' YOLO11 Jetson tables (45 points) and NVIDIA's demoBERT tables (24 points)",
        {"kinds": {"depthwise": 0.2}},
        confirmed=True,
    ),
    "x86": Family(
        X86_LANES,
        _x86(0.7, 0.6, 0.5),
        "Fitted to OpenVINO latencies that this project measured on one busy Zen 4 server, and to one that OpenVINO "
        "publishes for a Core Ultra 7; see docs/targets.md",
    ),
    "x86-amx": Family(
        X86_LANES,
        _x86(0.7, 0.2, 0.1),
        "Fitted to OpenVINO latencies that this project measured on one AMX server; see docs/targets.md",
    ),
    "arm": Family(
        {"float32": 4, "int8": 4},
        _ARM,
        "Fitted to Ultralytics' YOLO11 Raspberry Pi 5 figures for ONNX Runtime FP32; INT8 efficiency is assumed",
        _ARM_FIXED,
    ),
    "arm-openvino": Family(
        {"float32": 4, "int8": 4},
        _ARM,
        "Fitted to Ultralytics' YOLO11 Raspberry Pi 5 figures for OpenVINO FP32; INT8 efficiency is assumed",
        _ARM_OPENVINO_FIXED,
    ),
    "intel-npu": Family(
        {"float16": 16, "int8": 16},
        _NPU,
        "Fitted to OpenVINO's published MobileNetV2 INT8 latencies on two NPUs",
        _NPU_FIXED,
    ),
    "intel-gpu": Family(
        {"float32": 16, "float16": 16, "int8": 16},
        (Free(("floor_us",), 10, 0.7), Free(("call_us",), 60, 0.7), Free(("efficiency", "int8"), 0.4, 0.5, 1)),
        "Assumed: no latency of an Intel integrated GPU was published in the tables that this project uses",
        {"kinds": {"linear": 0.8, "attention": 0.2, "matmul": 0.2, "depthwise": 0.2}, "memory": 0.6},
    ),
    "qualcomm-hexagon": Family(
        {"float16": 16, "int8": 16},
        _NPU,
        "Fitted to Qualcomm's published MobileNet-v2 latencies (w8a8 and float) on two chips",
        _NPU_FIXED,
    ),
}
