"""Hard limits of a build, and the units in which people write them."""

import re
from dataclasses import dataclass
from typing import Any

from compactor.errors import UsageError

_TIME = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_SIZE = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*")


def _parse(text: str, units: dict[str, float] | dict[str, int], what: str, example: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise UsageError(f"{what} {text!r} is not a number with a unit", f"write it like {example}")
    value = float(match[1]) * units[match[2].lower()]
    if value <= 0:
        raise UsageError(f"{what} {text!r} must be positive", f"write it like {example}")
    return value


def milliseconds(text: str) -> float:
    """``"5ms"``, ``"800us"``, ``"0.1s"`` as milliseconds. Raises `UsageError`."""
    return _parse(text, _TIME, "latency", "5ms, 800us or 0.1s")


def size_bytes(text: str) -> int:
    """``"1MB"``, ``"512KiB"`` as bytes. Raises `UsageError`."""
    return int(_parse(text, _SIZE, "size", "1MB or 512KiB"))


def percent(text: str, what: str = "drop") -> float:
    """``"1%"`` as 1.0 (percentage points). Raises `UsageError`."""
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] != "%":
        raise UsageError(f"{what} {text!r} is not a percentage", "write it like 1% or 0.5%")
    return float(match[1])


@dataclass(frozen=True)
class Budget:
    """Hard limits. Strings are parsed: ``Budget(latency="5ms", size="1MB", drop="1%")``.

    Attributes:
        latency: milliseconds at p50, or None.
        latency_share: the same as a share of the teacher's latency (``latency="25%"``), or None.
        size: bytes of the lowered model, or None.
        drop: percentage points below the teacher's score, or None.
    """

    latency: float | None = None
    size: int | None = None
    drop: float | None = None
    latency_share: float | None = None

    def __init__(
        self,
        latency: str | float | None = None,
        size: str | int | None = None,
        drop: str | float | None = None,
    ) -> None:
        share = None
        if isinstance(latency, str):
            if latency.strip().endswith("%"):
                share, latency = percent(latency, "latency") / 100, None
            else:
                latency = milliseconds(latency)
        object.__setattr__(self, "latency", latency)
        object.__setattr__(self, "latency_share", share)
        object.__setattr__(self, "size", size_bytes(size) if isinstance(size, str) else size)
        object.__setattr__(self, "drop", percent(drop) if isinstance(drop, str) else drop)

    def to_dict(self) -> dict[str, Any]:
        """The limits that are set, for JSON."""
        return {k: v for k, v in self.__dict__.items() if v is not None}
