"""`Latency`: one latency figure that never forgets whether it was measured or predicted."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from compactor.ir.kernels import Kernel

Basis = Literal["measured", "predicted"]
Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True)
class Latency:
    """Latency of one inference, in milliseconds.

    Measured: ``p50``, ``p90``, ``p99`` over ``n`` queries with ``threads`` (where known), and a ``warning`` when
    the machine was not quiet. Predicted: ``p50`` with a 90 % interval ``low``..``high``, and a ``warning`` that names
    what has no model.
    """

    p50: float
    basis: Basis
    p90: float | None = None
    p99: float | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    threads: int | None = None
    warning: str | None = None

    def scaled(self, factor: float) -> "Latency":
        """The same figures times ``factor``, to correct for a machine that has become slower or faster."""
        times = {k: v * factor for k in ("p50", "p90", "p99", "low", "high") if (v := getattr(self, k)) is not None}
        return replace(self, **times)

    def to_dict(self) -> dict[str, float | int | str]:
        """The figures that are present, for JSON."""
        return {k: v for k, v in self.__dict__.items() if v is not None}

    def __str__(self) -> str:
        if self.basis == "measured":
            return f"{self.p50:.3f} ms (measured)"
        if self.low is None or self.high is None:
            return f"{self.p50:.3f} ms (predicted)"
        return f"{self.p50:.3f} ms (predicted, {self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class KernelTime:
    """Predicted microseconds ``us`` of one kernel, the bytes it moves, and what most of its time goes to.

    ``bound``: ``compute`` (operations), ``memory`` (bytes) or ``launch`` (the floor of any kernel).
    """

    kernel: "Kernel"
    us: float
    bytes: int
    bound: Bound
