"""What a result must carry to be compared with another: machine, versions, commit, date; and writing it down."""

import json
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("compactor", "torch", "numpy", "openvino", "nncf", "onnxruntime", "transformers")


def facts(seed: int) -> dict[str, Any]:
    """Machine, versions, commit, seed and date (UTC) of this run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "seed": seed,
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }


def machine() -> dict[str, Any]:
    """Processor, the instruction sets that decide low-precision speed, cores that this process may use, memory."""
    import psutil
    from cpuinfo import get_cpu_info

    info = get_cpu_info()
    wanted = ("avx2", "avx512", "amx", "bf16", "neon", "asimd", "i8mm")
    return {
        "cpu": info.get("brand_raw", platform.processor()),
        "arch": platform.machine(),
        "flags": sorted(f for f in info.get("flags", []) if any(w in f for w in wanted)),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
    }


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``name.json`` into the results folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, sort_keys=False) + "\n")
    return path


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was made before, else made now and written, whole or not at all: an interrupted run goes on."""
    if not path.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(made))
        part.replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False).stdout
    return head.stdout.strip() + ("+changes" if dirty.strip() else "")
