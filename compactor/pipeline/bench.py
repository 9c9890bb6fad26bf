"""Times models on a device, in turns with a reference whose speed tells how the machine drifts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from torch import Tensor

from compactor.backend import Lowered, Session
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.pipeline.request import backend_of, bare_context
from compactor.target import Observation, Target

SECONDS = 0.12
"""How long a model runs, in turns with the reference."""
SLOW, TRIES = 1.06, 3
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
    """A model lowered for a target, inputs at batch 1, and the kernels that shall explain its latency."""

    precision: str
    kernels: tuple[Kernel, ...]
    lowered: Lowered
    inputs: tuple[Tensor, ...]


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
    return Sample(precision, program.kernels(), lowered, tuple(program.example_inputs(batch=1)))


class Bench:
    """Times samples on a device that is present.

    Attributes:
        drifts: the reference's latency during each measurement, relative to what it was first.
    """

    def __init__(self, target: Target, reference: Sample) -> None:
        self.target, self.backend = target, backend_of(target)
        self._reference = _Fixed(self.backend.open(reference.lowered, batch=1), reference.inputs)
        self._usual = min(self._reference_ms() for _ in range(5))
        self.drifts: list[float] = []

    def measure(self, sample: Sample, seconds: float = SECONDS, tries: int = TRIES) -> Observation:
        """The latency at batch 1, as it would be at the speed that the machine had first.

        What slows a machine down does not slow all models alike: when it is slow the model is timed again, up to
        ``tries`` times with pauses, and the least disturbed time counts.
        """
        session = self.backend.open(sample.lowered, batch=1)
        sessions = {"": session, "reference": self._reference}
        found: dict[float, float] = {}
        for again in range(tries):
            time.sleep(again)
            times = self.target.compare(sessions, sample.inputs, seconds=seconds)
            drift = times["reference"].p50 / self._usual
            found[drift] = times[""].p50 / drift
            if drift < SLOW:
                break
        drift = min(found)
        self.drifts.append(drift)
        return Observation(sample.precision, sample.kernels, found[drift])

    def _reference_ms(self) -> float:
        return self.target.compare({"": self._reference}, (), seconds=SECONDS)[""].p50


@dataclass(frozen=True)
class _Fixed:
    """A session that runs on inputs of its own, whatever it is given."""

    session: Session
    inputs: Sequence[Tensor]

    @property
    def runtime(self) -> str:
        return self.session.runtime

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.session(self.inputs)
