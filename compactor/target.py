"""The contract of a target: a device profile that predicts, and measures where the device is present."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from compactor.backend import Session
from compactor.ir.expected import ExpectedKernels
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.ir.workload import workload
from compactor.latency import KernelTime, Latency

PRECISIONS = ("float32", "float16", "bfloat16", "int8")

Precisions = str | Sequence[str]
"""One precision for all kernels, or one for each."""


class Part(NamedTuple):
    """Kernels that ran together, by number; the microseconds a profile gives them, in how many nodes of the runtime."""

    kernels: tuple[int, ...]
    us: float
    nodes: int


@dataclass(frozen=True)
class Observation:
    """One model timed on a device: its precision, its kernels, its latency in milliseconds, corrected for drift.

    ``parts`` are what a profile adds: how the time falls to the kernels.
    """

    precision: str
    kernels: tuple[Kernel, ...]
    ms: float
    parts: tuple[Part, ...] = ()


class Target(Protocol):
    """One device in one power mode."""

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> str:
        """Name of the backend that lowers for this device (``openvino``, ``onnx``, ``tensorrt``)."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions the device runs natively, a subset of `PRECISIONS`."""
        ...

    @property
    def present(self) -> bool:
        """Whether latencies can be measured here."""
        ...

    @property
    def machines(self) -> tuple[str, ...]:
        """The architectures that such a device may have, as ``uname -m`` says; none when it may be any."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 over all that predictions depend on."""
        ...

    def predict(self, kernels: Sequence[Kernel], precision: Precisions) -> Latency:
        """Predicted latency, milliseconds, of these kernels run one after the other at ``precision``.

        That is one for all of them, or one for each.

        A kernel of kind `compactor.ir.kernels.UNKNOWN` widens the interval.
        """
        ...

    def expected(self, kernels: ExpectedKernels, precision: str) -> Tensor:
        """The same in expectation, a scalar in milliseconds with gradients, for passes that learn what to keep.

        ``kernels`` come from a `compactor.ir.expected.Expectation`.
        """
        ...

    def breakdown(self, kernels: Sequence[Kernel], precision: Precisions) -> Sequence[KernelTime]:
        """Where the predicted time goes, kernel by kernel: their sum is that of `predict` less what a call costs."""
        ...

    def floor(self, kernels: Sequence[Kernel]) -> float:
        """Milliseconds below which these kernels cannot get in any precision, to refuse impossible budgets."""
        ...

    def measure(self, session: Session, inputs: Sequence[Tensor]) -> Latency:
        """Measured latency, milliseconds. Raises `UnsupportedError` when the device is not present."""
        ...

    def compare(
        self, sessions: Mapping[str, Session], inputs: Sequence[Tensor], *, seconds: float = ...
    ) -> dict[str, Latency]:
        """Measured latencies of several sessions in interleaved rounds, so that drift hits them alike.

        Each runs for at least ``seconds``; with less than the default it gets fewer queries too.
        """
        ...

    def learn(self, observed: Sequence[Observation], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what was measured, for later predictions; ``facts`` say what it rests on, and come back with more."""
        ...


def native(target: Target, precision: str) -> str:
    """The precision in which a device runs a model of this one: in its widest, where it has no float32."""
    if precision in target.precisions or precision != "float32":
        return precision
    return next(p for p in PRECISIONS if p in target.precisions)


def lacking(target: Target, *precisions: str) -> list[str]:
    """Why a target cannot compute in these precisions: the first that it does not run."""
    missing = [p for p in precisions if p not in target.precisions]
    return [f"{target.name} does not run {missing[0]}, only {', '.join(target.precisions)}"] if missing else []


def work(target: Target, program: Program) -> tuple[tuple[Kernel, ...], str | tuple[str, ...]]:
    """The kernels of a Program and the precisions in which the device runs them, for `Target.predict`."""
    kernels, precision = workload(program)
    if isinstance(precision, str):
        return kernels, native(target, precision)
    return kernels, tuple(native(target, p) for p in precision)


def predicted(target: Target, program: Program) -> Latency:
    """Predicted latency of a Program in its own precisions, milliseconds at batch 1."""
    return target.predict(*work(target, program))
