"""What passes run in: a target with some of its facts changed, a context, progress as lines, latencies in turns."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import data, facts
from compactor import frontend
from compactor.backend import Session
from compactor.budget import Budget
from compactor.data import DataSource
from compactor.ir.program import Program
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.request import backend_of, open_data, resolve_target


class Like:
    """A target but for some of its facts: its ``precisions``, or whether its device is ``present``."""

    def __init__(self, name: str, **changed: Any) -> None:
        self._target = resolve_target(name)
        self.fingerprint = f"{self._target.fingerprint} {changed}"
        vars(self).update(changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def predicted(**changed: Any) -> Any:
    """This machine as its datasheet has it, as if it were elsewhere: any machine compares the same."""
    return Like("host-cpu", present=False, **changed)


class Lines:
    """Progress as a line now and then."""

    def __init__(self, every: float = 20.0) -> None:
        self._every, self._last = every, 0.0

    def update(self, done: int, total: int, text: str = "") -> None:
        """A line, unless there was one just now."""
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            print(f"  {done}/{total} {text}", flush=True)

    def note(self, text: str) -> None:
        """A line."""
        print(f"  {text}", flush=True)


def context(
    teacher: Program, source: DataSource, target: Any, folder: Path, seed: int = 0, **options: Any
) -> PassContext:
    """The surroundings of passes; ``options`` are further fields of `PassContext`."""
    folder.mkdir(parents=True, exist_ok=True)
    return PassContext(
        teacher=teacher, target=target, backend=backend_of(target), data=source, budget=Budget(), workspace=folder,
        seed=seed, **{"progress": Lines(), **options},
    )  # fmt: skip


def resnet56(samples: int, seed: int) -> tuple[Program, DataSource]:
    """The canonical teacher, and CIFAR-10 with so many training images, drawn by seed."""
    teacher = canonical(frontend.load(data.shared() / "teachers" / "cifar10-resnet56" / "resnet56.pt2"))
    source = open_data(data.prepare_cifar10(facts.ROOT / ".compactor" / "benchmarks" / "cifar10"), teacher, seed)
    return teacher, replace(source, train=data.drawn(source.train, samples, seed))


def kept(folder: Path, make: Callable[[Path], tuple[Program, dict[str, Any]]]) -> tuple[Program, dict[str, Any]]:
    """A student and its row: made in the folder once, then read from there."""
    student, row = folder / "student.pt2", folder / "row.json"
    if not row.exists():
        folder.mkdir(parents=True, exist_ok=True)
        program, found = make(folder)
        program.save(student)
        row.write_text(json.dumps(found))
    return frontend.load(student), json.loads(row.read_text())


def opened(programs: Mapping[str, Program], ctx: PassContext, batch: int | None = None) -> dict[str, Session]:
    """Each as lowered for the target, for any batch or for one alone."""
    sessions = {}
    for name, program in programs.items():
        folder = ctx.workspace / f"lowered-{name}"
        folder.mkdir(exist_ok=True)
        sessions[name] = ctx.backend.open(ctx.backend.lower(program, ctx.target, folder), batch=batch)
    return sessions


def in_turns(programs: Mapping[str, Program], ctx: PassContext) -> dict[str, float]:
    """Milliseconds of each at the median, batch 1, timed in turns."""
    found = ctx.target.compare(opened(programs, ctx, 1), ctx.teacher.example_inputs(1))
    return {name: round(latency.p50, 4) for name, latency in found.items()}
