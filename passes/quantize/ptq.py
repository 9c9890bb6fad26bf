"""`PostTrainingQuantization`: int8 by NNCF's placement and ranges, as plain QDQ."""

from typing import Any, ClassVar

from pydantic import Field

from compactor.budget import Budget
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized
from compactor.ir.quantplan import QuantPlan
from compactor.passes.quantize.calibrate import Calibrated, CalibrationConfig, calibrated
from compactor.passes.quantize.judge import Judge
from compactor.passes.quantize.sensitivity import ranked, relieved, runner
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.target import Target, lacking


class PtqConfig(CalibrationConfig):
    """Options of `quantize.ptq`.

    With ``drop`` it is accuracy-aware: nodes that rounding hurts most compute exactly until the score holds.
    """

    drop: float | None = Field(default=None, ge=0, description="percentage points of dev score it may cost; no limit")
    dev_samples: int = Field(default=2000, ge=1, description="drop: samples that are scored")
    probes: int = Field(default=64, ge=1, description="drop: calibration samples that rank the nodes")


class PostTrainingQuantization(Pass):
    """Quantize weights per channel and activations per tensor to 8 bits (Jacob et al. 2018; NNCF's placement).

    Weights are stored int8, biases stay float. Metrics: ``samples``, numbers of quantized ``weights`` and
    ``activations``, ``signed`` (signed activations with zero point 0), ``settings`` that NNCF got; with ``drop`` also
    ``score`` (name, floor), ``exact`` (the nodes that compute exactly) and ``sensitivity``.
    """

    name: ClassVar[str] = "quantize.ptq"
    version: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "batchnorm_folded"})
    ensures: ClassVar[frozenset[str]] = frozenset({"quantized"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "fold_batchnorm", "search.uniform", "distill.logits")
    needs: ClassVar[dict[str, str]] = {"nncf": "quantize"}
    Config: ClassVar[type[PassConfig]] = PtqConfig

    def refuses(self, program: Program, target: Target, budget: Budget) -> list[str]:
        """Devices without integers."""
        return integers(target)

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Calibrate and convert. Raises what `calibrated` and, with ``drop``, `relieved` raise."""
        found = calibrated(program, ctx, self.config)
        plan, facts = found.plan, found.facts
        if self.config.drop is not None:
            plan, more = self._relieved(program, found, ctx)
            facts = {**facts, **more}
        return PassResult(quantized(found.program, plan), True, {**counts(plan), **facts})

    def _relieved(self, program: Program, found: Calibrated, ctx: PassContext) -> tuple[QuantPlan, dict[str, Any]]:
        judge = Judge.of(ctx, self.config.dev_samples)
        floor = judge.score(program) - float(self.config.drop)
        facts: dict[str, Any] = {"score": {"name": judge.name, "floor": round(floor, 4)}, "exact": []}
        if judge.score(runner(found.program, found.plan)) >= floor:
            return found.plan, facts
        probes = ctx.data.calibration(self.config.probes, ctx.seed)
        order = ranked(found.program, found.plan, probes, ctx.progress)
        plan, exact = relieved(found.program, found.plan, [node for node, _ in order], judge.score, floor)
        return plan, {**facts, "exact": exact, "sensitivity": dict(order)}


def integers(target: Target) -> list[str]:
    """Why a target cannot use int8, if so."""
    return lacking(target, "int8")


def counts(plan: QuantPlan) -> dict[str, int]:
    """How many weights and activations are quantized."""
    weights = sum(q.weight for q in plan)
    return {"weights": weights, "activations": len(plan) - weights}
