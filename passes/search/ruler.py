"""The latency of candidates without building them: predictions, corrected by what is measured."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.pipeline.context import PassContext

_LEAST = 1.5
"""A student faster than predicted by more than this, beside the whole, or slower than the whole: the measurement was
disturbed by other work."""

_AGREED = 0.02
"""Predictions that a measurement changes by no more than this stand."""
_SLOPES = 0.2, 1.0
"""Of the logarithm of latency over that of its prediction: what does not shrink makes it less than one."""


class Ruler:
    """Latency of candidates in the target's fastest precision, corrected by measurements where there are any.

    Between two measured models the latency is interpolated by their predictions, in logarithms; below the fastest it
    goes on as between the last two, above the slowest in proportion.
    """

    def __init__(self, program: Program, ctx: PassContext) -> None:
        self._ctx = ctx
        self._measured: dict[str, dict[float, float]] = {p: {} for p in ctx.target.precisions}
        self._present = ctx.measures
        self.whole = ctx.latency(program).p50
        if self._present:
            for precision in ctx.target.precisions:
                self.correct_at(program, program.kernels(), precision)

    def fastest(self, kernels: Sequence[Kernel]) -> tuple[float, str]:
        """Lowest corrected prediction, milliseconds, and its precision."""
        return min((self._corrected(self._predicted(kernels, p), p), p) for p in self._measured)

    def correct(self, student: Program, kernels: Sequence[Kernel]) -> bool:
        """Measure a candidate; True when the correction changed enough to choose again."""
        if not self._present:
            return False
        expected, precision = self.fastest(kernels)
        self.correct_at(student, kernels, precision)
        now, _ = self.fastest(kernels)
        return abs(now - expected) > _AGREED * expected

    def correct_at(self, program: Program, kernels: Sequence[Kernel], precision: str) -> None:
        """Make the prediction at one precision agree with the measurement of this Program."""
        measured = self._ctx.latency(self._realised(program, precision)).p50
        predicted, known = self._predicted(kernels, precision), self._measured[precision]
        if known:
            whole = max(known)
            measured = min(max(measured, predicted * known[whole] / whole / _LEAST), known[whole])
        known[predicted] = measured

    def _predicted(self, kernels: Sequence[Kernel], precision: str) -> float:
        return self._ctx.target.predict(kernels, precision).p50

    def _corrected(self, predicted: float, precision: str) -> float:
        known = sorted(self._measured[precision].items())
        if not known:
            return predicted
        x, (at, found) = math.log(predicted), np.log(known).T
        if x >= at[-1]:
            return predicted * known[-1][1] / known[-1][0]
        if x >= at[0]:
            return float(np.exp(np.interp(x, at, found)))
        slope = np.clip((found[1] - found[0]) / (at[1] - at[0]), *_SLOPES) if len(known) > 1 else 1.0
        return float(np.exp(found[0] + slope * (x - at[0])))

    def _realised(self, program: Program, precision: str) -> Program:
        steps: list[tuple[str, dict[str, Any]]] = [("fold_batchnorm", {})]
        if precision == "int8":
            steps.append(("quantize.ptq", {"samples": min(32, len(self._ctx.data.train))}))
        elif precision != "float32":
            steps.append(("quantize.cast", {"dtype": precision}))
        return self._ctx.apply(program, steps)

    def smallest_size(self, size: int) -> float:
        """Bytes in the smallest precision of the target; int8 weights keep their scales, about 2 %."""
        shares = {"float32": 1.0, "float16": 0.5, "bfloat16": 0.5, "int8": 0.27}
        return size * min(shares[p] for p in self._measured)
