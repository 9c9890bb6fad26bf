"""What of this machine and its tools a result depends on."""

import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

_ALWAYS = ("compactor", "torch", "numpy")
_OF_BACKEND = {
    "cuda": ("onnx", "onnxscript", "onnxruntime-gpu"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "qnn": ("onnx", "onnxscript"),
    "tensorrt": ("onnx", "onnxscript", "tensorrt"),
}
_OF_MODULE = {"nncf": ("nncf",), "torchao": ("torchao",)}


def tool_versions(backend: str, modules: Iterable[str] = ()) -> dict[str, str]:
    """Versions of the packages that produce a result; a package that is not installed is left out."""
    names = {*_ALWAYS, *_OF_BACKEND.get(backend, (backend,))}
    names.update(*(_OF_MODULE.get(m, (m,)) for m in modules))
    return {name: found for name in sorted(names) if (found := _version(name)) is not None}


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def numerics() -> dict[str, str | int]:
    """What decides the last bits of a floating-point sum here: instructions and threads."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"instructions": capability, "threads": torch.get_num_threads(), "machine": platform.machine()}


@cache
def machine() -> dict[str, str | int]:
    """This machine, as far as measured latencies depend on it."""
    import cpuinfo

    return {"cpu": str(cpuinfo.get_cpu_info().get("brand_raw", platform.processor())), "cores": _cores()}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
