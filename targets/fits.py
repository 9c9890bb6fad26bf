"""What was measured on a device, kept: one file per target, hardware and runtime version."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from compactor.errors import InputError
from compactor.pipeline import disk
from compactor.targets.correction import Correction


@dataclass(frozen=True)
class Fit:
    """Corrections by precision; ``facts`` say what they rest on (totals measured, drift, runtime, date)."""

    corrections: Mapping[str, Correction]
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> Path:
        """Write the file, whole or not at all."""
        arrays: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for precision, correction in self.corrections.items():
            values = asdict(correction)
            rest[precision] = {name: values.pop(name) for name in ("prior", "calibration")}
            arrays |= {f"{precision}.{name}": value for name, value in values.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with disk.writing(path.parent, "free some space, then fit again; an earlier fit is kept"):
            save_file(arrays, partial, {"facts": json.dumps(self.facts), "rest": json.dumps(rest)})
            partial.replace(path)
        return path

    @staticmethod
    def load(path: Path) -> "Fit":
        """Read the file. Raises `InputError` when it is damaged."""
        try:
            with safe_open(path, "numpy") as file:
                meta, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                rest = json.loads(meta["rest"])
                corrections = {p: Correction(**_of(p, arrays), **rest[p]) for p in rest}
                return Fit(corrections, json.loads(meta["facts"]))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no fit: {error}", "remove it and run compactor targets fit") from None


def _of(precision: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of one precision, by field."""
    return {name.split(".", 1)[1]: value for name, value in arrays.items() if name.startswith(f"{precision}.")}
