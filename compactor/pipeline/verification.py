"""What can be done with a finished artifact: check it again, and finish it on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compactor import parity
from compactor.device import Device
from compactor.errors import ParityError, UnsupportedError
from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.pipeline import disk, remote
from compactor.pipeline.lowering import measure
from compactor.pipeline.request import backend_of, check_data, open_data, resolve_target
from compactor.report import gate
from compactor.report.artifact import Artifact
from compactor.report.manifest import ParityRecord

_SAMPLES = 32


def verify(artifact: Artifact, data: str | None = None) -> list[ParityRecord]:
    """Parity of every lowered model against ``student.pt2``, on ``data`` or on random inputs.

    Raises `InputError` when files are damaged, `MissingRuntimeError` when a runtime is not installed.
    """
    artifact.require_whole()
    student = artifact.student()
    inputs = _inputs(student, data, artifact.manifest.seed)
    backend = backend_of(resolve_target(artifact.manifest.target))
    records = []
    for lowered in artifact.lowered():
        witness = None if backend.installed() else backend.reference(lowered)
        found = parity.check(student, witness or backend.open(lowered), inputs, student.precision)
        records.append(ParityRecord.of(lowered.backend, found))
    return records


def finish(artifact: Artifact, device: str | Device | None = None, minutes: float = remote.MINUTES) -> Artifact:
    """Check parity and measure on the device, rewrite the manifest with the measured latency and decide the gate again.

    The device is this machine, or ``device``, such as ``ssh://user@host``, within ``minutes``. Raises
    `UnsupportedError` when it is not the target, `ParityError` when the outputs differ, and what `Device.run` raises.
    """
    found = _here(artifact) if device is None else _there(artifact, remote.open_device(device, minutes))
    for record in found.parity:
        if not record.passed:
            raise ParityError(
                f"the model lowered for {record.backend} differs from student.pt2: relative error {record.error:.2e}",
                "build again, with the versions of the device's runtime",
            )
    manifest = artifact.manifest
    metrics = manifest.metrics.with_measured(found.latency)
    changes = {"metrics": metrics, "gate": gate.evaluate(metrics, manifest.budget), "parity": found.parity}
    environment = {**manifest.environment, **found.environment}
    finished = manifest.model_copy(update={**changes, "environment": environment})
    with disk.writing(artifact.folder, "free some space, then finish again; the artifact is as it was"):
        return artifact.rewrite(finished)


@dataclass(frozen=True)
class _Finding:
    parity: list[ParityRecord]
    latency: Latency
    environment: dict[str, Any]


def _here(artifact: Artifact) -> _Finding:
    target = resolve_target(artifact.manifest.target)
    if not target.present:
        raise UnsupportedError(
            f"this machine is not {target.name}", "copy the artifact to the device, or give --device ssh://user@host"
        )
    return _Finding(verify(artifact), measure(artifact, target), {})


def _there(artifact: Artifact, device: Device) -> _Finding:
    artifact.require_whole()
    target, student = resolve_target(artifact.manifest.target), artifact.student()
    lowered = artifact.lowered()[0]
    models = {"student": (student, lowered)}
    samples = _inputs(student, None, artifact.manifest.seed)
    found = remote.examine(device, target, backend_of(target), models, samples)
    records = [ParityRecord.of(lowered.backend, found.parity["student"])]
    return _Finding(records, found.latencies["student"], {"device": found.facts.to_dict()})


def _inputs(student: Program, data: str | None, seed: int) -> Sequence[Tensor]:
    if data is None:
        return student.example_inputs(batch=_SAMPLES, seed=seed)
    source = open_data(data, student, seed)
    check_data(student, source)
    return source.calibration(min(_SAMPLES, len(source.train)), seed).inputs
