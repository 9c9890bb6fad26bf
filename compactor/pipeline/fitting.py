"""Fits a target's latency model on the device itself: random networks, lowered as builds are, timed one by one."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from compactor.backend import Backend, Session
from compactor.errors import CompactorError, InputError, UnsupportedError
from compactor.frontend import export
from compactor.ir.program import Program
from compactor.pipeline.context import Progress, Silent
from compactor.pipeline.request import backend_of, bare_context
from compactor.pipeline.suite import network
from compactor.target import Observation, Target

REFERENCE = 7
"""Seed of the network that every measurement is interleaved with."""
NOISY = 1.3
"""How far the reference's speed may move (5th to 95th percentile) before a fit warns."""
_SECONDS = 0.12


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


class Bench:
    """Times Programs on a device in turns with a reference whose speed tells how the machine drifts."""

    def __init__(self, target: Target, backend: Backend, folder: Path) -> None:
        self.target, self.backend, self.folder = target, backend, folder
        program = self.prepared(REFERENCE)
        self._inputs = program.example_inputs(batch=1)
        self._reference = self._open(program)
        first = [self._turns(self._reference, self._inputs)[1] for _ in range(5)]
        self.usual = median(first)
        self.drifts: list[float] = []

    def prepared(self, seed: int) -> Program:
        """The suite's network, canonical, batch norms folded."""
        module, inputs = network(seed)
        return self.run(export(module, inputs), PREPARATION)

    def quantized(self, program: Program, precision: str) -> Program:
        """A prepared Program in another precision, from synthetic inputs."""
        return self.run(program, _QUANTIZERS[precision])

    def run(self, program: Program, steps: Sequence[tuple[str, dict[str, object]]]) -> Program:
        """The Program after these passes."""
        return bare_context(program, self.target, self.folder).apply(program, steps)

    def measure(self, program: Program, seconds: float = _SECONDS) -> float:
        """Milliseconds at batch 1 at the speed that the machine had first."""
        found, reference = self._turns(self._open(program), program.example_inputs(batch=1), seconds)
        self.drifts.append(reference / self.usual)
        return found * self.usual / reference

    def _open(self, program: Program) -> Session:
        with TemporaryDirectory(dir=self.folder) as folder:
            return self.backend.open(self.backend.lower(program, self.target, Path(folder)), batch=1)

    def _turns(self, session: Session, inputs: Sequence[Tensor], seconds: float = _SECONDS) -> tuple[float, float]:
        sessions = {"program": session, "reference": _Fixed(self._reference, self._inputs)}
        found = self.target.compare(sessions, inputs, seconds=seconds)
        return found["program"].p50, found["reference"].p50


def fit(
    target: Target, *, seconds: float, seed: int = 0, samples: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Time random networks on this device and keep what they teach; the facts kept with the fit.

    ``seconds`` are the time there is, ``samples`` the largest number of networks. Raises `UnsupportedError` when the
    target is not present, `InputError` when nothing could be measured.
    """
    observed, drifts = observe(target, seconds=seconds, seed=seed, samples=samples, progress=progress or Silent())
    low, high = (float(v) for v in np.percentile(drifts, (5, 95))) if drifts else (1.0, 1.0)
    facts: dict[str, Any] = {
        "networks": len({o.kernels for o in observed}), "seed": seed, "drift": [round(low, 3), round(high, 3)],
    }  # fmt: skip
    if high / low > NOISY:
        facts["warning"] = (
            f"the speed of this machine moved by {high / low - 1:.0%} meanwhile: close other programs and fit again"
        )
    if not observed:
        raise InputError(f"nothing could be measured on {target.name} in {seconds:g} s", "give it more --minutes")
    return target.learn(observed, facts)


def observe(
    target: Target, *, seconds: float, seed: int, progress: Progress, samples: int | None = None
) -> tuple[list[Observation], list[float]]:
    """Observations in every precision of the target, until the time is over, and the drift at each."""
    backend = backend_of(target)
    if not (target.present and backend.installed()):
        raise UnsupportedError(
            f"target {target.name} is not present on this machine, so nothing can be measured",
            "run compactor targets fit on the device itself",
        )
    start = time.monotonic()
    found: list[Observation] = []
    with TemporaryDirectory(prefix="compactor-") as name:
        bench = Bench(target, backend, Path(name))
        for number in itertools.count() if samples is None else range(samples):
            spent = time.monotonic() - start
            if spent >= seconds:
                break
            progress.update(int(spent), int(seconds), "measuring")
            found += _observe(bench, 1000 * (seed + 1) + number)
    return found, bench.drifts


def _observe(bench: Bench, seed: int) -> list[Observation]:
    """One network in every precision; what cannot be made is left out."""
    found = []
    try:
        plain = bench.prepared(seed)
        for precision in bench.target.precisions:
            program = bench.quantized(plain, precision)
            found.append(Observation(precision, program.kernels(), bench.measure(program)))
    except CompactorError:
        pass  # one odd network less
    return found


PREPARATION: tuple[tuple[str, dict[str, object]], ...] = (("canonicalize", {}), ("fold_batchnorm", {}))
_QUANTIZERS: dict[str, tuple[tuple[str, dict[str, object]], ...]] = {
    "float32": (),
    "float16": (("quantize.cast", {"dtype": "float16"}),),
    "bfloat16": (("quantize.cast", {"dtype": "bfloat16"}),),
    "int8": (("quantize.ptq", {"samples": 2}),),
}
