"""One artifact on many targets and devices: predicted, and measured where it can be; machines work side by side."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from compactor.backend import Lowered
from compactor.device import Device, identity
from compactor.errors import CompactorError, UsageError
from compactor.ir.kernels import Kernel
from compactor.latency import Latency
from compactor.pipeline import remote
from compactor.pipeline.context import Progress, Silent
from compactor.pipeline.lowering import ready
from compactor.pipeline.request import backend_of, resolve_target
from compactor.report.artifact import Artifact
from compactor.target import Target, native

HERE = "this machine"
T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One target, and one device of its kind: None where there is none at hand.

    ``failure`` says why a figure is missing that could be expected.
    """

    target: str
    backend: str
    device: str | None
    predicted: Latency | None
    measured: Latency | None
    failure: CompactorError | None = None

    @property
    def error(self) -> float | None:
        """How far the prediction lies above what was measured, as a share of it."""
        if self.predicted is None or self.measured is None:
            return None
        return self.predicted.p50 / self.measured.p50 - 1

    def to_dict(self) -> dict[str, Any]:
        """JSON form; milliseconds."""
        return {
            "target": self.target,
            "backend": self.backend,
            "device": self.device,
            "predicted": None if self.predicted is None else self.predicted.to_dict(),
            "measured": None if self.measured is None else self.measured.to_dict(),
            "error": self.error,
            "failure": None
            if self.failure is None
            else {"message": self.failure.message, "remedy": self.failure.remedy},
        }


@dataclass(frozen=True)
class _Place:
    """A target and where it is measured: on a device, or here where ``device`` is None."""

    target: Target
    device: Device | None

    @property
    def name(self) -> str:
        return HERE if self.device is None else self.device.name

    def machine(self) -> str:
        """The machine behind the address."""
        if self.device is None:
            return identity()
        return remote.check(self.device, self.target, backend_of(self.target)).identity

    def measure(self, lowered: Lowered, inputs: Sequence[Tensor]) -> Latency:
        backend = backend_of(self.target)
        if self.device is not None:
            return remote.measure(self.device, self.target, backend, lowered, inputs)
        return self.target.measure(backend.open(lowered, batch=1), inputs)


def sweep(
    artifact: Artifact,
    targets: Sequence[str | Target] = (),
    devices: Sequence[tuple[str | Target | None, Device]] = (),
    progress: Progress | None = None,
) -> list[Row]:
    """Latency of an artifact's student at batch 1 on every target, and on every device as the target beside it.

    A device without a target counts as the artifact's own. Machines are measured side by side, one measurement at a
    time on each, whatever its addresses. What fails on one device is said in its row and stops no other. Raises
    `UsageError` when there is nothing to do, `UnsupportedError` for an unknown target, `InputError` for a damaged
    artifact.
    """
    artifact.require_whole()
    asked = [resolve_target(target) for target in targets]
    places = [_Place(resolve_target(t if t is not None else artifact.manifest.target), d) for t, d in devices]
    if not asked and not places:
        raise UsageError("nothing to compare", "give --targets a,b,c, or --device ssh://user@host")
    places += [_Place(target, None) for target in asked if target.present]
    student = artifact.student()
    kernels, precision = student.kernels(), student.precision
    found = _measured(artifact, places, progress if progress is not None else Silent())
    idle = [t for t in asked if t.name not in {place.target.name for place in places}]
    rows = [_row(kernels, precision, target, None, None) for target in idle]
    return rows + [_row(kernels, precision, p.target, p.name, result) for p, result in zip(places, found, strict=True)]


def _row(
    kernels: Sequence[Kernel],
    precision: str,
    target: Target,
    device: str | None,
    result: Latency | CompactorError | None,
) -> Row:
    predicted = _attempt(lambda: target.predict(kernels, native(target, precision)))
    failure = next((found for found in (result, predicted) if isinstance(found, CompactorError)), None)
    return Row(target.name, target.backend, device, _figure(predicted), _figure(result), failure)


def _figure(found: Latency | CompactorError | None) -> Latency | None:
    return found if isinstance(found, Latency) else None


def _measured(artifact: Artifact, places: Sequence[_Place], progress: Progress) -> list[Latency | CompactorError]:
    """The latency at each place, or why there is none.

    Everything is lowered first. Then places are grouped by machine; machines work side by side, each on one at a time.
    """
    with ExitStack() as stack, ThreadPoolExecutor(max(1, len(places))) as pool, _stopping(places):
        models = [_attempt(partial(_entered, stack, artifact, place.target)) for place in places]
        machines: dict[str, list[int]] = {}
        found: dict[int, Latency | CompactorError] = {}
        for i, machine in enumerate(pool.map(lambda place: _attempt(place.machine), places)):
            if isinstance(machine, CompactorError):
                found[i] = machine
            else:
                machines.setdefault(machine, []).append(i)

        def visit(indices: Sequence[int]) -> None:
            for i in indices:
                model = models[i]
                found[i] = model if isinstance(model, CompactorError) else _attempt(partial(places[i].measure, *model))
                progress.update(len(found), len(places), "measuring")

        list(pool.map(visit, machines.values()))
    return [found[i] for i in range(len(places))]


def _entered(stack: ExitStack, artifact: Artifact, target: Target) -> tuple[Lowered, tuple[Tensor, ...]]:
    return stack.enter_context(ready(artifact, target))


def _attempt(work: Callable[[], T]) -> T | CompactorError:
    try:
        return work()
    except CompactorError as error:
        return error


@contextmanager
def _stopping(places: Sequence[_Place]) -> Iterator[None]:
    """When something ends this block, such as the user, nothing goes on anywhere."""
    try:
        yield
    except BaseException:
        for place in places:
            if place.device is not None:
                place.device.cancel()
        raise
