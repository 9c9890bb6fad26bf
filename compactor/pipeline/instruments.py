"""Instruments look on while a pipeline runs: progress, timing, peak memory, dumps of the IR."""

import sys
import time
from pathlib import Path
from typing import Any

from compactor.ir.program import Program
from compactor.pipeline import disk
from compactor.pipeline.context import Progress
from compactor.pipeline.passes import Pass


class Instrument:
    """Base: called around every pass; ``reused`` says that the result came from the store."""

    def before(self, step: Pass, position: int, total: int, program: Program) -> None:
        """A pass is about to run on ``program``."""

    def after(
        self, step: Pass, position: int, total: int, program: Program, record: dict[str, Any], reused: bool
    ) -> None:
        """A pass made ``program``; ``record`` is what the manifest will say about it."""


class Announce(Instrument):
    """One line per pass on the progress display."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def before(self, step: Pass, position: int, total: int, program: Program) -> None:
        """Show the pass as running."""
        self.progress.update(0, 1, f"[{position + 1}/{total}] {step.name}")

    def after(
        self, step: Pass, position: int, total: int, program: Program, record: dict[str, Any], reused: bool
    ) -> None:
        """Note the pass as done, with its time or that it was done before."""
        how = "reused" if reused else f"{record['seconds']:.1f} s"
        self.progress.update(1, 1, f"[{position + 1}/{total}] {step.name}")
        self.progress.note(f"[{position + 1}/{total}] {step.name}: {how}")


class Timing(Instrument):
    """Wall-clock seconds of each pass, verification and storing included, in ``seconds`` by position and name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = 0.0

    def before(self, step: Pass, position: int, total: int, program: Program) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def after(
        self, step: Pass, position: int, total: int, program: Program, record: dict[str, Any], reused: bool
    ) -> None:
        """Stop the clock."""
        self.seconds[f"{position}.{step.name}"] = time.perf_counter() - self._started


class PeakMemory(Instrument):
    """Highest resident memory of the process up to the end of each pass, bytes, in ``peak``."""

    def __init__(self) -> None:
        self.peak: dict[str, int] = {}

    def after(
        self, step: Pass, position: int, total: int, program: Program, record: dict[str, Any], reused: bool
    ) -> None:
        """Read the high-water mark."""
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        self.peak[f"{position}.{step.name}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Dumps(Instrument):
    """The IR as text before the first and after every pass, in a folder: ``00.input.txt``, ``01.canonicalize.txt``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def before(self, step: Pass, position: int, total: int, program: Program) -> None:
        """Dump the input of the pipeline."""
        if position == 0:
            self._write("00.input.txt", program)

    def after(
        self, step: Pass, position: int, total: int, program: Program, record: dict[str, Any], reused: bool
    ) -> None:
        """Dump the result of the pass."""
        self._write(f"{position + 1:02}.{step.name}.txt", program)

    def _write(self, name: str, program: Program) -> None:
        with disk.writing(self.folder, "free some space, or point --dumps to another disk"):
            self.folder.mkdir(parents=True, exist_ok=True)
            disk.write_text(self.folder / name, describe(program))


def describe(program: Program) -> str:
    """A Program as text: inputs, tensors and the graph."""
    lines = [f"precision {program.arithmetic}", *(f"input {s.to_dict()}" for s in program.inputs)]
    lines += [f"tensor {name} {tuple(t.shape)} {t.dtype}" for name, t in program.state.items()]
    return "\n".join([*lines, str(program.graph), ""])
