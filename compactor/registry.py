"""The one door for plug-ins: entry-point groups, for built-ins and third parties alike."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from compactor.errors import UsageError

GROUPS = (
    "compactor.passes", "compactor.backends", "compactor.targets", "compactor.devices", "compactor.calibration",
    "compactor.rules",
)  # fmt: skip


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


def names(group: str) -> list[str]:
    """Names registered in an entry-point group, sorted; nothing is imported."""
    return list(_points(group))


def load(group: str, name: str) -> Any:
    """The object registered under a name. Raises `UsageError` that lists the known names."""
    points = _points(group)
    if name not in points:
        kind = group.removeprefix("compactor.").removesuffix("es" if group.endswith("passes") else "s")
        raise UsageError(f"unknown {kind} {name!r}", f"known: {', '.join(points) or 'none'}")
    return points[name].load()
