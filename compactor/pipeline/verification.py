"""What can be done with a finished artifact: check it again, and finish it on the device."""

from collections.abc import Sequence

from torch import Tensor

from compactor import parity
from compactor.errors import InputError, ParityError, UnsupportedError
from compactor.ir.program import Program
from compactor.pipeline import disk
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
    _check_whole(artifact)
    student = artifact.student()
    inputs = _inputs(student, data, artifact.manifest.seed)
    backend = backend_of(resolve_target(artifact.manifest.target))
    records = []
    for lowered in artifact.lowered():
        witness = None if backend.installed() else backend.reference(lowered)
        found = parity.check(student, witness or backend.open(lowered), inputs, student.precision)
        records.append(
            ParityRecord(
                backend=lowered.backend,
                error=found.error,
                cosine=found.cosine,
                agreement=found.agreement,
                passed=found.passed,
            )
        )
    return records


def finish(artifact: Artifact) -> Artifact:
    """Check parity and measure on the device, rewrite the manifest with the measured latency and decide the gate again.

    Raises `UnsupportedError` when this machine is not the target, `ParityError` when the outputs differ.
    """
    manifest = artifact.manifest
    target = resolve_target(manifest.target)
    if not target.present:
        raise UnsupportedError(
            f"this machine is not {manifest.target}", "copy the artifact to the device, and run there"
        )
    records = verify(artifact)
    for record in records:
        if not record.passed:
            raise ParityError(
                f"the model lowered for {record.backend} differs from student.pt2: relative error {record.error:.2e}",
                "build again, with the versions of the device's runtime",
            )
    metrics = manifest.metrics.with_measured(measure(artifact, target))
    decided = gate.evaluate(metrics, manifest.budget)
    finished = manifest.model_copy(update={"metrics": metrics, "gate": decided, "parity": records})
    with disk.writing(artifact.folder, "free some space, then finish again; the artifact is as it was"):
        return artifact.rewrite(finished)


def _check_whole(artifact: Artifact) -> None:
    damage = artifact.damage()
    if damage:
        raise InputError(f"{artifact.folder} is damaged: {'; '.join(damage)}", "copy it again, or build it again")


def _inputs(student: Program, data: str | None, seed: int) -> Sequence[Tensor]:
    if data is None:
        return student.example_inputs(batch=_SAMPLES, seed=seed)
    source = open_data(data, student, seed)
    check_data(student, source)
    return source.calibration(min(_SAMPLES, len(source.train)), seed).inputs
