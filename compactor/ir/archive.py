"""A Program on disk: a ``.pt2`` archive with what `torch.export` does not know in an extra file."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from compactor.ir.exported import from_exported, to_exported
from compactor.ir.program import InputSpec, Program

EXTRA = "compactor.json"


def save(program: Program, path: Path) -> None:
    """Write ``path`` whole or not at all."""
    extra = {
        "inputs": [s.to_dict() for s in program.inputs],
        "outputs": list(program.outputs),
        "precision": program.precision,
        "history": [dict(h) for h in program.history],
        "meta": dict(program.meta),
        "trainable": sorted(program.trainable),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.pt2")
    try:
        torch.export.save(to_exported(program), temporary, extra_files={EXTRA: json.dumps(extra, sort_keys=True)})
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Program:
    """Read an archive, ours or any that `torch.export.save` wrote."""
    extra = {EXTRA: ""}
    exported = torch.export.load(path, extra_files=extra)
    return program_of(exported, json.loads(extra[EXTRA]) if extra[EXTRA] else None)


def program_of(exported: ExportedProgram, extra: dict[str, Any] | None) -> Program:
    """The Program of a loaded archive and the content of its extra file, if it is one of ours."""
    program = from_exported(exported)
    if extra is None:
        return program
    return program.evolve(
        inputs=tuple(InputSpec.from_dict(s) for s in extra["inputs"]),
        outputs=tuple(extra["outputs"]),
        precision=extra["precision"],
        history=tuple(extra["history"]),
        meta=extra["meta"],
        trainable=frozenset(extra["trainable"]),
    )
