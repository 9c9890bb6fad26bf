"""Lowering a Program, and what is known of it afterwards: size, parity, latency."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from compactor import parity
from compactor.backend import Backend, Lowered, Session
from compactor.device import Device
from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.pipeline import remote
from compactor.pipeline.request import backend_of, resolve_target
from compactor.report.artifact import Artifact
from compactor.scoring import scorable
from compactor.target import Target, predicted


@dataclass(frozen=True)
class Model:
    """A Program as lowered; ``session`` is None where its runtime is not installed.

    ``witness`` runs the same files for the parity check: the session, or another runtime that reads them.
    """

    program: Program
    lowered: Lowered
    session: Session | None
    witness: Session | None

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs of the lowered model, or of the Program where the runtime is not here."""
        if self.session is not None:
            return self.session(inputs)
        outputs = self._stand_in(*inputs)
        return (outputs,) if isinstance(outputs, Tensor) else outputs

    @cached_property
    def _stand_in(self) -> Program:
        return scorable(self.program)


def lower(program: Program, backend: Backend, target: Target, folder: Path) -> Model:
    """Lower into an empty folder, and open a session where the runtime is installed."""
    try:
        lowered = backend.lower(program, target, folder)
    except OSError as error:
        error.filename = error.filename or str(folder)  # a failed write does not say where
        raise
    session = backend.open(lowered) if backend.installed() else None
    return Model(program, lowered, session, session if session is not None else backend.reference(lowered))


def check_parity(model: Model, inputs: Sequence[Tensor], who: str) -> parity.Parity | None:
    """How closely the lowered model follows its Program; None where no runtime here reads it.

    Raises `ParityError` when it does not.
    """
    if model.witness is None:
        return None
    return parity.check(model.program, model.witness, inputs).require(f"the {who} lowered for {model.lowered.backend}")


def latencies(models: Sequence[Model], backend: Backend, target: Target) -> list[Latency]:
    """Latency of each model at batch 1: measured side by side where the device is present, predicted elsewhere."""
    if not (target.present and backend.installed()):
        return [predict(m.program, target) for m in models]
    opened = {str(i): backend.open(m.lowered, batch=1) for i, m in enumerate(models)}
    found = target.compare(opened, models[0].program.example_inputs(batch=1))
    return [found[name] for name in opened]


def predict(program: Program, target: str | Target) -> Latency:
    """Predicted latency, milliseconds, of one inference at batch 1 and the Program's precisions."""
    resolved = resolve_target(target)
    return predicted(resolved, program)


def measure(
    model: Program | Artifact, target: str | Target, device: str | Device | None = None, minutes: float = remote.MINUTES
) -> Latency:
    """Measured latency, milliseconds, of one inference at batch 1; a Program is lowered first.

    With ``device``, such as ``ssh://user@host``, it is measured there, within ``minutes``. Raises `UnsupportedError`
    when the device is not present, `MissingRuntimeError` when the runtime is not installed, `DeviceError` when the
    connection fails.
    """
    resolved = resolve_target(target)
    backend = backend_of(resolved)
    opened = None if device is None else remote.open_device(device, minutes)
    with ready(model, resolved) as (lowered, inputs):
        if opened is not None:
            return remote.measure(opened, resolved, backend, lowered, inputs)
        return resolved.measure(backend.open(lowered, batch=1), inputs)


@contextmanager
def ready(model: Program | Artifact, target: Target) -> Iterator[tuple[Lowered, tuple[Tensor, ...]]]:
    """A model lowered for a target, and inputs at batch 1; an artifact's own files where they are for its runtime."""
    backend = backend_of(target)
    with TemporaryDirectory(prefix="compactor-") as folder:
        if isinstance(model, Program):
            yield backend.lower(model, target, Path(folder)), model.example_inputs(batch=1)
            return
        student = model.student()
        ready = [m for m in model.lowered() if m.backend == backend.name]
        yield ready[0] if ready else backend.lower(student, target, Path(folder)), student.example_inputs(batch=1)
