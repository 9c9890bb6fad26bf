"""`Mixed`: int8 where it pays on this target, the fastest float precision elsewhere."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized
from compactor.passes.quantize.calibrate import CalibrationConfig, calibrated
from compactor.passes.quantize.candidates import FLOATS, Candidate
from compactor.passes.quantize.fastest import Fastest, FastestConfig
from compactor.passes.quantize.judge import Judge
from compactor.passes.quantize.mixing import Mixing, Mixture
from compactor.passes.quantize.payoff import Payoff
from compactor.passes.quantize.ptq import integers
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig, PassResult


class MixedConfig(FastestConfig):
    """Options of `quantize.mixed`: those of `quantize.fastest`, and ``probes``, which rank layers by what they cost."""

    probes: int = Field(default=64, ge=1, description="calibration samples that rank the layers, where that is needed")


class Mixed(Fastest):
    """`quantize.fastest` with one more kind of candidate: a precision for each layer.

    Quantizers are those of `quantize.ptq`; what is predicted to gain nothing by them on the target loses them, and then
    those that cost most accuracy for the time they save, until ``dev`` holds. Conversions between int8 and float layers
    count. Where the device is here, mixtures are measured like all candidates, also those that take conversions for
    free, which some runtimes fuse, and those that take layers for what the runtime's own profile says. Metrics: those
    of `quantize.fastest`, ``between`` (the precision of float layers), ``exact`` (nodes in float for accuracy) and
    ``layers`` (precision, microseconds as they were chosen by, and reason of each).
    """

    name: ClassVar[str] = "quantize.mixed"
    version: ClassVar[int] = 2
    needs: ClassVar[dict[str, str]] = {"nncf": "quantize"}
    Config: ClassVar[type[PassConfig]] = MixedConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Choose. Raises `UnsupportedError` when nothing can be made, and what `calibrated` raises for bad data."""
        judge = Judge.of(ctx, self.config.dev_samples)
        floats = self.uniform(program, ctx, judge, FLOATS)
        floor = self.floor(program, judge, floats, ctx)
        try:
            mixing = self._mixing(program, floats, floor, judge, ctx)
        except UnsupportedError as error:
            return self.result(program, [*floats, Candidate("int8", reason=error.message)], floor, judge, ctx)
        mixtures = mixing.candidates()
        result = self.result(program, [*floats, *(m.candidate for m in mixtures)], floor, judge, ctx)
        chosen = next((m for m in mixtures if m.candidate.precision == result.metrics["chosen"]), None)
        return replace(result, metrics={**result.metrics, **_described(mixing, chosen, result.metrics["chosen"])})

    def _mixing(
        self, program: Program, floats: Sequence[Candidate], floor: float, judge: Judge, ctx: PassContext
    ) -> Mixing:
        """Calibrated, with the fastest float precision that this runtime computes in between quantizers."""
        if obstacles := integers(ctx.target):
            raise UnsupportedError(obstacles[0], "choose among its float precisions")
        found = calibrated(program, ctx, CalibrationConfig(samples=self.config.samples))
        whole = quantized(found.program, found.plan)

        def fits(precision: str) -> bool:
            return not ctx.backend.supports(whole.evolve(between=precision), ctx.target)

        times = {c.precision: c.latency.p50 for c in floats if c.latency is not None}
        between = min(filter(fits, times), key=times.__getitem__, default="float32")
        plain = next(c for c in floats if c.precision == between)
        payoff = Payoff.predicted(found.program, found.plan, ctx.target, between)
        return Mixing(found, payoff, between, plain, floor, judge, ctx, self.config.probes)


def _described(mixing: Mixing, chosen: Mixture | None, precision: str) -> dict[str, Any]:
    """Every kernel's precision and why; without a mixture all are in ``precision``."""
    between, layers = precision if chosen is None else chosen.between, []
    for i, layer in enumerate((mixing if chosen is None else chosen).payoff.layers):
        own = "int8" if chosen is not None and i in chosen.layers else between
        why = f"{precision} throughout" if chosen is None else mixing.reason(i, chosen)
        times = {"float_us": round(layer.float_us, 3), "int8_us": round(layer.int8_us, 3)}
        layers.append({"node": layer.name, "precision": own, **times, "why": why})
    layers += [{"node": name, "precision": between, "why": "nothing quantizes it"} for name in mixing.payoff.others]
    return {"between": between, "exact": [] if chosen is None else list(chosen.exact), "layers": layers}
