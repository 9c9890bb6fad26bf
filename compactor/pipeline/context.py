"""What a pass may use beside its Program: everything of other packages reaches it through here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


_TRIES = 3
"""How often a measurement is made while the machine is not quiet."""


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
        if not self.measures:
            return predicted(self.target, program)

        def measure() -> Latency:
            with TemporaryDirectory(dir=self.workspace) as folder:
                session = self._opened(program, folder)
                return _steady(lambda: self._corrected(program, session))

        return self.ledger(program, measure) if self.ledger is not None else measure()

    def compared(self, programs: "Mapping[str, Program]") -> dict[str, Latency]:
        """The same of several Programs, measured in turns with one another and not kept in the ledger.

        Settles which of them is faster where `latency`, which times each beside the teacher alone, leaves it open.
        """
        if not self.measures:
            return {name: predicted(self.target, program) for name, program in programs.items()}
        with TemporaryDirectory(dir=self.workspace) as folder:
            sessions = {name: self._opened(program, mkdtemp(dir=folder)) for name, program in programs.items()}
            found = [self._in_turns(sessions)]
            while any(latency.warning for latency in found[-1].values()) and len(found) < _TRIES:
                found.append(self._in_turns(sessions))
        return {name: _median([turns[name] for turns in found]) for name in sessions}

    @property
    def measures(self) -> bool:
        """Whether latencies are measured: the device and its runtime are here."""
        return self.target.present and self.backend.installed()

    def _corrected(self, program: "Program", session: Session) -> Latency:
        if program is self.teacher:
            return self.target.measure(session, program.example_inputs(batch=1))
        return self._in_turns({"program": session})["program"]

    def _in_turns(self, sessions: Mapping[str, Session]) -> dict[str, Latency]:
        found = self.target.compare({"": self._reference, **sessions}, self.teacher.example_inputs(batch=1))
        return {name: found[name].scaled(self._known / found[""].p50) for name in sessions}

    def _opened(self, program: "Program", folder: str) -> Session:
        return self.backend.open(self.backend.lower(program, self.target, Path(folder)), batch=1)

    @cached_property
    def _known(self) -> float:
        """Milliseconds of the teacher, to which measurements are corrected."""
        return self.latency(self.teacher).p50

    @cached_property
    def _reference(self) -> Session:
        return self._opened(self.teacher, mkdtemp(dir=self.workspace))


def _steady(measure: Callable[[], Latency]) -> Latency:
    """The median of up to three measurements, more than one where the machine was not quiet."""
    found = [measure()]
    while found[-1].warning is not None and len(found) < _TRIES:
        found.append(measure())
    return _median(found)


def _median(found: Sequence[Latency]) -> Latency:
    return sorted(found, key=lambda latency: latency.p50)[len(found) // 2]
