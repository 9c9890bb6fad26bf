"""The machine that this runs on: cores, instruction sets, clock, from sources that do not change while it runs."""

import os
import platform
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

_CPUINFO = Path("/proc/cpuinfo")
_DEFAULT_GHZ = 2.5
_BOOST = 1.3
"""How far above the nominal clock a few busy cores run, where only that one is known (assumed)."""


@dataclass(frozen=True)
class Host:
    """``isa`` is a key of `OPERATIONS`; ``ghz`` the highest clock, known or assumed, never the current one."""

    model: str
    arch: str
    cores: int
    isa: str
    bfloat16: bool
    ghz: float

    def to_dict(self) -> dict[str, str | int | float | bool]:
        """JSON form."""
        return asdict(self)


OPERATIONS: dict[str, dict[str, int]] = {
    "amx": {"float32": 64, "bfloat16": 1024, "int8": 2048},
    "avx512_vnni": {"float32": 64, "bfloat16": 128, "int8": 256},
    "avx512_vnni_split": {"float32": 32, "bfloat16": 64, "int8": 128},
    "avx512": {"float32": 64, "bfloat16": 64, "int8": 85},
    "avx_vnni": {"float32": 32, "bfloat16": 32, "int8": 128},
    "avx2": {"float32": 32, "bfloat16": 32, "int8": 43},
    "neon_dot": {"float32": 16, "bfloat16": 16, "int8": 64},
    "generic": {"float32": 8, "bfloat16": 8, "int8": 8},
}
"""Operations per cycle and core, a MAC counting two.

Intel 64 and IA-32 Optimization Reference Manual: two 512-bit FMA ports, VNNI 64 MACs a port, AMX 512 BF16 or 1024 INT8
MACs a cycle; AVX2 and AVX-512 without VNNI take three instructions for one INT8 dot product. ``split``: AMD's Zen 4
runs 512-bit instructions in two halves (Software Optimization Guide for the AMD Zen4 Microarchitecture).
``neon_dot``: Arm Cortex-A76 Software Optimization Guide, two 128-bit pipes. Rows other than ``amx``, ``avx512_vnni``
and ``neon_dot`` are still to be confirmed against those guides.
"""


@cache
def detect() -> Host:
    """Facts about this machine. The same in every run on it."""
    model, flags, mhz = _facts()
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    arch = platform.machine()
    return Host(model, arch, max(1, min(cores, allowed)), _isa(arch, model, flags), _bfloat16(flags), _ghz(model, mhz))


def _facts() -> tuple[str, frozenset[str], float | None]:
    """Model name, feature flags, and the time-stamp clock in MHz."""
    if not _CPUINFO.exists():
        import cpuinfo

        # Takes a second: it starts processes to find out.
        info = cpuinfo.get_cpu_info()
        return info.get("brand_raw", "unknown"), frozenset(info.get("flags", ())), None
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}
    flags = frozenset((fields.get("flags") or fields.get("features") or "").split())
    vendor, family = fields.get("vendor_id", ""), fields.get("cpu family", "")
    if vendor == "AuthenticAMD" and family == "25":
        flags |= {"zen4_or_older"}
    bogus = fields.get("bogomips")
    # On x86 BogoMIPS is twice the time-stamp clock, which, unlike "cpu MHz", does not move with the load.
    mhz = float(bogus) / 2 if bogus and "tsc" in flags else None
    return fields.get("model name", fields.get("cpu part", "unknown")), flags, mhz


def _isa(arch: str, model: str, flags: frozenset[str]) -> str:
    if {"amx_int8", "amx_bf16"} <= flags:
        return "amx"
    if "avx512_vnni" in flags:
        return "avx512_vnni_split" if "zen4_or_older" in flags else "avx512_vnni"
    if "avx512f" in flags:
        return "avx512"
    if "avx_vnni" in flags:
        return "avx_vnni"
    if "avx2" in flags:
        return "avx2"
    return "neon_dot" if "asimddp" in flags or (arch == "arm64" and "Apple" in model) else "generic"


def _bfloat16(flags: frozenset[str]) -> bool:
    return bool({"avx512_bf16", "amx_bf16"} & flags)


def _ghz(model: str, mhz: float | None) -> float:
    highest = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if highest.exists():
        return round(int(highest.read_text()) / 1e6, 1)
    written = re.search(r"@\s*([0-9.]+)\s*GHz", model)
    nominal = float(written[1]) if written else mhz / 1e3 if mhz else _DEFAULT_GHZ
    return round(nominal * _BOOST, 1)
