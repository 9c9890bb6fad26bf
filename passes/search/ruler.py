"""The latency of candidates without building them: predictions, corrected by what is measured."""

from collections.abc import Sequence
from typing import Any

from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.pipeline.context import PassContext


class Ruler:
    """Latency of candidates in the target's fastest precision, corrected by measurements where there are any."""

    def __init__(self, program: Program, ctx: PassContext) -> None:
        self._ctx = ctx
        self._factor = dict.fromkeys(ctx.target.precisions, 1.0)
        self._present = ctx.target.present and ctx.backend.installed()
        self.teacher = ctx.latency(program).p50
        if self._present:
            for precision in list(self._factor):
                self.correct_at(program, program.kernels(), precision)

    def fastest(self, kernels: Sequence[Kernel]) -> tuple[float, str]:
        """Lowest corrected prediction, milliseconds, and its precision."""
        predict = self._ctx.target.predict
        return min((factor * predict(kernels, p).p50, p) for p, factor in self._factor.items())

    def correct(self, student: Program, kernels: Sequence[Kernel]) -> bool:
        """Measure a candidate; True when the correction changed enough to choose again."""
        if not self._present:
            return False
        expected, precision = self.fastest(kernels)
        self.correct_at(student, kernels, precision)
        now, _ = self.fastest(kernels)
        return abs(now - expected) > 0.03 * expected

    def correct_at(self, program: Program, kernels: Sequence[Kernel], precision: str) -> None:
        """Make the prediction at one precision agree with the measurement of this Program."""
        measured = self._ctx.latency(self._realised(program, precision)).p50
        self._factor[precision] = measured / self._ctx.target.predict(kernels, precision).p50

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
        return size * min(shares[p] for p in self._factor)
