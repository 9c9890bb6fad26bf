"""What a pass may use beside its Program: everything of other packages reaches it through here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Protocol

from compactor import registry
from compactor.backend import Backend, Session
from compactor.budget import Budget
from compactor.data import DataSource
from compactor.latency import Latency
from compactor.target import Target, predicted

if TYPE_CHECKING:
    from compactor.ir.program import Program


class Progress(Protocol):
    """One progress display; silent under ``--json``."""

    def update(self, done: int, total: int, text: str = "") -> None:
        """Report ``done`` of ``total`` steps of the current pass."""
        ...

    def note(self, text: str) -> None:
        """One line worth keeping on the screen."""
        ...


class Silent:
    """A Progress that shows nothing."""

    def update(self, done: int, total: int, text: str = "") -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class PassContext:
    """The surroundings of one pass run.

    ``workspace`` is the stage's own folder: it survives a kill, so checkpoints go there; it is removed once the stage
    result is stored. ``outputs`` is where outputs of teachers are kept for all stages and builds, else the workspace.
    ``effort`` is quick, balanced or max.
    """

    teacher: "Program"
    target: Target
    backend: Backend
    data: DataSource
    budget: Budget
    workspace: Path
    seed: int = 0
    effort: str = "balanced"
    progress: Progress = field(default_factory=Silent)
    ledger: "Callable[[Program, Callable[[], Latency]], Latency] | None" = None
    outputs: Path | None = None

    def apply(self, program: "Program", steps: Iterable[tuple[str, Mapping[str, object]]]) -> "Program":
        """The Program after these passes, by name with their options; nothing is checked, recorded or stored."""
        for name, options in steps:
            kind = registry.load("compactor.passes", name)
            program = kind(kind.Config(**options)).run(program, self).program
        return program

    def latency(self, program: "Program") -> Latency:
        """Latency at batch 1 as lowered for the target: measured where the device is present, else predicted.

        Measurements are interleaved with the teacher and corrected to its first one, so that a machine whose speed
        drifts still ranks candidates; they go through the ledger, so that a resumed build takes the same decisions.
        """
        if not (self.target.present and self.backend.installed()):
            return predicted(self.target, program)

        def measure() -> Latency:
            with TemporaryDirectory(dir=self.workspace) as folder:
                session = self.backend.open(self.backend.lower(program, self.target, Path(folder)), batch=1)
                return _steady(lambda: self._corrected(program, session))

        return self.ledger(program, measure) if self.ledger is not None else measure()

    def _corrected(self, program: "Program", session: Session) -> Latency:
        inputs = program.example_inputs(batch=1)
        if program is self.teacher:
            return self.target.measure(session, inputs)
        known = self.latency(self.teacher).p50
        found = self.target.compare({"teacher": self._reference, "program": session}, inputs)
        return found["program"].scaled(known / found["teacher"].p50)

    @cached_property
    def _reference(self) -> Session:
        folder = Path(mkdtemp(dir=self.workspace))
        return self.backend.open(self.backend.lower(self.teacher, self.target, folder), batch=1)


def _steady(measure: Callable[[], Latency]) -> Latency:
    """The median of up to three measurements, more than one where the machine was not quiet."""
    found = [measure()]
    while found[-1].warning is not None and len(found) < 3:
        found.append(measure())
    return sorted(found, key=lambda latency: latency.p50)[len(found) // 2]
