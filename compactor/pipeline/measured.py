"""Latencies that were measured elsewhere, read from a list, for targets that are not at hand."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from compactor.errors import InputError, UnsupportedError
from compactor.pipeline.bench import prepare
from compactor.pipeline.request import open_teacher
from compactor.target import Observation, Target


class Measured(BaseModel):
    """One entry: a model's file, the precision it ran in, and its latency at batch 1 in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    precision: str = "float32"
    ms: float = Field(gt=0, allow_inf_nan=False)


def fit(target: Target, path: Path) -> dict[str, Any]:
    """Learn from the list in ``path``; the facts kept with the fit.

    The list is JSON, ``[{"model": "resnet.pt2", "precision": "int8", "ms": 1.52}, ...]``, with files relative to it.
    Raises `InputError` for a list that cannot be used, `UnsupportedError` for a precision the target has not.
    """
    entries = _read(path)
    for entry in entries:
        if entry.precision not in target.precisions:
            known = ", ".join(target.precisions)
            raise UnsupportedError(
                f"target {target.name} does not run {entry.precision!r} natively", f"it runs {known}"
            )
    with TemporaryDirectory(prefix="compactor-") as folder:
        files = {entry.model: path.parent / entry.model for entry in entries}
        kernels = {name: prepare(open_teacher(file), target, Path(folder)).kernels() for name, file in files.items()}
    observed = [Observation(e.precision, kernels[e.model], e.ms) for e in entries]
    return target.learn(observed, {"networks": len(kernels), "measured": str(path)})


def _read(path: Path) -> list[Measured]:
    remedy = 'write [{"model": "FILE", "precision": "float32", "ms": 1.5}, ...]'
    try:
        entries = TypeAdapter(list[Measured]).validate_python(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, reason['loc']))}: {reason['msg']}" if reason else str(error)
        raise InputError(f"{path} is no list of latencies: {what}", remedy) from None
    if not entries:
        raise InputError(f"{path} has no latencies", remedy)
    return entries
