"""Parity: does a lowered model compute what its Program computes, on real inputs?

Both sides are the same Program, run by torch and by the runtime, so that the tolerance covers rounding and nothing
else: what quantization itself costs is a matter of scores, not of parity.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from compactor.backend import Session
from compactor.errors import InternalError, ParityError
from compactor.ir.program import Program


@dataclass(frozen=True)
class Tolerance:
    """Limits of one precision: relative error at most; cosine and share of decided samples that agree at least."""

    error: float
    cosine: float
    agreement: float


# float32: sums in another order. float16 and bfloat16: 11 and 8 bits of mantissa, rounded after every layer in an
# order that differs. int8: a value on a rounding boundary moves by a whole step, and layers in between may be bfloat16.
TOLERANCES = {
    "float32": Tolerance(1e-3, 0.99999, 1.0),
    "float16": Tolerance(2e-2, 0.9995, 0.98),
    "bfloat16": Tolerance(8e-2, 0.995, 0.95),
    "int8": Tolerance(1e-1, 0.99, 0.95),
}


@dataclass(frozen=True)
class Parity:
    """Worst figures over all outputs of a lowered model against its Program.

    Attributes:
        error: norm of the difference over the norm of the Program's output.
        cosine: between the two outputs, flattened.
        agreement: share of samples with the same top-1 index; 1.0 for outputs without classes.
        decided: the same, samples whose two best values are nearer than the tolerance counting as equal.
        samples: number of samples compared.
        precision: whose tolerance applies.
        passed: all within tolerance; never with a NaN.
    """

    error: float
    cosine: float
    agreement: float
    decided: float
    samples: int
    precision: str
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return asdict(self)

    def require(self, what: str = "the lowered model") -> "Parity":
        """Itself when it passed. Raises `ParityError` with the figures."""
        if self.passed:
            return self
        limit = TOLERANCES[self.precision]
        raise ParityError(
            f"{what} does not compute what its {self.precision} Program computes: relative error {self.error:.2e} "
            f"(at most {limit.error:.0e}), cosine {self.cosine:.5f} (at least {limit.cosine}), top-1 agreement "
            f"{self.agreement:.1%} on {self.samples} samples (decided ones at least {limit.agreement:.0%})",
            "build in another precision (--pipeline without quantize.*) and report the model with its manifest",
        )


def check(program: Program, session: Session, inputs: Sequence[Tensor], precision: str | None = None) -> Parity:
    """Compare a session with its Program on one batch of inputs.

    ``precision`` picks the tolerance, by default the Program's. Raises `InternalError` when numbers or shapes of
    outputs differ.
    """
    precision = precision or program.precision
    wanted = program(*inputs)
    return compare((wanted,) if isinstance(wanted, Tensor) else wanted, session(inputs), precision)


def compare(wanted: Sequence[Tensor], found: Sequence[Tensor], precision: str) -> Parity:
    """Compare outputs, the Program's first. Raises `InternalError` when numbers or shapes differ."""
    shapes = [[tuple(t.shape) for t in side] for side in (wanted, found)]
    if shapes[0] != shapes[1] or not wanted:
        raise InternalError(f"the lowered model returns shapes {shapes[1]}, its Program {shapes[0]}")
    limit = TOLERANCES[precision]
    figures = [_figures(a.double(), b.double(), limit.error) for a, b in zip(wanted, found, strict=True)]
    # NaN must win, which min and max of Python do not promise.
    error, cosine, agreement, decided = torch.tensor(figures, dtype=torch.float64).unbind(1)
    worst = float(error.max()), float(cosine.min()), float(agreement.min()), float(decided.min())
    passed = worst[0] <= limit.error and worst[1] >= limit.cosine and worst[3] >= limit.agreement
    return Parity(*worst, samples=len(wanted[0]), precision=precision, passed=passed)


def _figures(wanted: Tensor, found: Tensor, slack: float) -> tuple[float, float, float, float]:
    norms = float(wanted.norm()), float(found.norm())
    error = float((wanted - found).norm()) / (norms[0] or 1.0)
    # Two zeros point the same way; a zero and something else do not.
    cosine = float((wanted * found).sum()) / (norms[0] * norms[1]) if all(norms) else float(norms[0] == norms[1])
    if wanted.dim() < 2 or wanted.shape[-1] < 2:
        return error, cosine, 1.0, 1.0
    choice = found.argmax(-1, keepdim=True)
    best, theirs = wanted.amax(-1, keepdim=True), wanted.gather(-1, choice)
    near = best - theirs <= slack * wanted.abs().amax(-1, keepdim=True)
    same = wanted.argmax(-1, keepdim=True) == choice
    return error, cosine, float(same.double().mean()), float(near.double().mean())
