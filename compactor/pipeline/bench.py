"""Times models on a device, in turns with a reference whose speed tells how the machine drifts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from torch import Tensor

from compactor.backend import Lowered, Profiler, Session
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.pipeline.parts import kernels_by_name, parts
from compactor.pipeline.request import backend_of, bare_context
from compactor.target import Observation, Part, Target

SECONDS = 0.12
"""How long a model runs, in turns with the reference."""
SLOW, TRIES = 1.1, 2
"""From which drift on a model is timed again, and how often at most."""

_PREPARATION: tuple[tuple[str, dict[str, object]], ...] = (("canonicalize", {}), ("fold_batchnorm", {}))
_QUANTIZERS: dict[str, tuple[tuple[str, dict[str, object]], ...]] = {
    "float32": (),
    "float16": (("quantize.cast", {"dtype": "float16"}),),
    "bfloat16": (("quantize.cast", {"dtype": "bfloat16"}),),
    "int8": (("quantize.ptq", {"samples": 2}),),
}


@dataclass(frozen=True)
class Sample:
    """A model lowered for a target, inputs at batch 1, and the kernels that shall explain its latency.

    ``places`` say which kernel each node of the lowered file belongs to or feeds (`compactor.pipeline.parts`).
    """

    precision: str
    kernels: tuple[Kernel, ...]
    lowered: Lowered
    inputs: tuple[Tensor, ...]
    places: Mapping[str, tuple[int, bool]]


def prepare(program: Program, target: Target, folder: Path) -> Program:
    """Canonical, batch norms folded."""
    return bare_context(program, target, folder).apply(program, _PREPARATION)


def sample(program: Program, precision: str, target: Target, folder: Path) -> Sample:
    """A prepared Program as a build would lower it in this precision, quantized from synthetic inputs, in ``folder``.

    Raises `CompactorError` for one that cannot be quantized or lowered.
    """
    program = bare_context(program, target, folder).apply(program, _QUANTIZERS[precision])
    own = Path(mkdtemp(dir=folder))
    lowered = backend_of(target).lower(program, target, own)
    places = kernels_by_name(program, lowered.origins)
    return Sample(precision, program.kernels(), lowered, tuple(program.example_inputs(batch=1)), places)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a sample and, measured in turns with it, of the reference; its profile, if any."""

    sample: Sample
    ms: float
    reference_ms: float
    parts: tuple[Part, ...] = ()


class Bench:
    """Times samples on a device that is present.

    Attributes:
        fastest: milliseconds of the reference when nothing disturbed it, as far as was seen.
        timings: all that was measured.
    """

    def __init__(self, target: Target, reference: Sample) -> None:
        self.target, self.backend = target, backend_of(target)
        self._reference = _Fixed(self.backend.open(reference.lowered, batch=1), reference.inputs)
        self.fastest = min(self._alone() for _ in range(5))
        self.timings: list[Timing] = []

    def measure(self, sample: Sample, seconds: float = SECONDS, tries: int = TRIES) -> Timing:
        """The latency at batch 1.

        What slows a machine down does not slow all models alike: when it is slow the model is timed again, up to
        ``tries`` times with pauses, and the least disturbed time counts.
        """
        session = self.backend.open(sample.lowered, batch=1)
        sessions = {"": session, "reference": self._reference}
        found: list[Timing] = []
        for again in range(tries):
            time.sleep(again)
            times = self.target.compare(sessions, sample.inputs, seconds=seconds)
            found.append(Timing(sample, times[""].p50, times["reference"].p50))
            self.fastest = min(self.fastest, found[-1].reference_ms)
            if found[-1].reference_ms < SLOW * self.fastest:
                break
        best = min(found, key=lambda t: t.reference_ms)
        self.timings.append(replace(best, parts=self._parts(sample)))
        return self.timings[-1]

    def _parts(self, sample: Sample) -> tuple[Part, ...]:
        """How the time falls to the kernels, where the runtime tells."""
        if not isinstance(self.backend, Profiler):
            return ()
        executed = self.backend.profile(sample.lowered, sample.inputs, seconds=SECONDS)
        return tuple(parts(executed, sample.places, len(sample.kernels)))

    def drifts(self, speed: float | None = None) -> list[float]:
        """The reference's latency at each timing over ``speed``: by default the lowest that was common."""
        times = [t.reference_ms for t in self.timings]
        return [t / (speed or self.usual) for t in times]

    @property
    def usual(self) -> float:
        """Milliseconds of the reference while the machine was fast: the tenth percentile of what was seen."""
        return float(np.percentile([t.reference_ms for t in self.timings], 10)) if self.timings else self.fastest

    def observations(self, speed: float | None = None) -> list[Observation]:
        """All timings as they would be at the speed where the reference takes ``speed`` milliseconds (`usual`)."""
        return [
            Observation(t.sample.precision, t.sample.kernels, t.ms / drift, t.parts)
            for t, drift in zip(self.timings, self.drifts(speed), strict=True)
        ]

    def _alone(self) -> float:
        return self.target.compare({"": self._reference}, (), seconds=SECONDS)[""].p50


@dataclass(frozen=True)
class _Fixed(Session):
    """A session that runs on inputs of its own, whatever it is given."""

    session: Session
    inputs: Sequence[Tensor]

    @property
    def runtime(self) -> str:
        return self.session.runtime

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.session(self.inputs)

    def query(self, inputs: Sequence[Tensor]) -> Callable[[], object]:
        return self.session.query(self.inputs)
