"""What the manifest says of a build."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compactor.budget import Budget
from compactor.data import DataSource
from compactor.device import Facts
from compactor.ir.program import Program
from compactor.parity import Parity
from compactor.pipeline.lowering import Model
from compactor.pipeline.versions import machine, numerics, tool_versions
from compactor.report import gate
from compactor.report.manifest import (
    DataRecord,
    Limits,
    LoweredModel,
    Manifest,
    Metrics,
    Network,
    ParityRecord,
    Stage,
)
from compactor.target import Target


def manifest(
    *,
    pipeline: str,
    history: Sequence[dict[str, Any]],
    teacher: Program,
    student: Program,
    target: Target,
    model: Model,
    data: DataSource,
    metrics: Metrics,
    budget: Budget,
    parity: Parity | None,
    seed: int,
    root: Path,
    device: Facts | None = None,
) -> Manifest:
    """The manifest of a build whose files lie under ``root``; `Draft.finish` adds their hashes.

    ``device`` is what measured it, where that was not this machine.
    """
    limits = Limits.of(budget)
    return Manifest(
        compactor=version("compactor"),
        target=target.name,
        backend=model.lowered.backend,
        seed=seed,
        pipeline=pipeline,
        history=[Stage(**record) for record in history],
        teacher=_network(teacher).model_copy(update={"assumed": teacher.meta.get("assumed")}),
        student=_network(student, _subnet(history)),
        data=DataRecord(fingerprint=data.fingerprint, synthetic=data.synthetic),
        metrics=metrics,
        budget=limits,
        gate=gate.evaluate(metrics, limits),
        parity=[] if parity is None else [ParityRecord.of(model.lowered.backend, parity)],
        lowered=[_lowered(model, root)],
        environment={**environment(target), **({} if device is None else {"device": device.to_dict()})},
    )


def _subnet(history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the last pass that removed something kept of the teacher."""
    found = [record["metrics"]["subnet"] for record in history if "subnet" in record["metrics"]]
    return found[-1] if found else None


def _network(program: Program, subnet: dict[str, Any] | None = None) -> Network:
    cost = program.cost()
    return Network(
        fingerprint=program.fingerprint,
        parameters=cost.parameters,
        macs=cost.macs,
        precision=program.arithmetic,
        subnet=subnet,
    )


def _lowered(model: Model, root: Path) -> LoweredModel:
    lowered = model.lowered
    return LoweredModel(
        backend=lowered.backend,
        folder=lowered.folder.relative_to(root).as_posix(),
        files=list(lowered.files),
        precision=lowered.precision,
        options=lowered.options,
    )


def environment(target: Target) -> dict[str, Any]:
    """Python, packages, cpu and threads of this build."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": tool_versions(target.backend, ("nncf", "transformers", "optimum")),
        **machine(),
        **numerics(),
    }
