"""`QuantizationAwareTraining`: weights and scales trained under rounding, against the teacher."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from compactor import scoring
from compactor.budget import Budget
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized, split
from compactor.ir.quantplan import QuantPlan
from compactor.passes.distill import recipe as recipes
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.distill.student import State, described, epochs_of, scored, selection
from compactor.passes.distill.variants import augmented
from compactor.passes.quantize.calibrate import Calibrated, CalibrationConfig, calibrated
from compactor.passes.quantize.ptq import counts, integers
from compactor.passes.quantize.sensitivity import runner
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig, PassResult
from compactor.target import Target
from compactor.training import TrainConfig
from compactor.training.cache import Teacher
from compactor.training.fakequant import fake_quantized, learned
from compactor.training.inside import Inside, InsideWeights

_SHARE = 4
"""A student that was distilled already needs a fourth of the epochs."""

_FEW_BITS = 10
"""Convolutions of fewer than 8 bits have further to go, and bear a higher rate (LSQ, section 3)."""


class QatConfig(LogitsConfig, CalibrationConfig):
    """Options of `quantize.qat`: those of `distill.logits`, of calibration, and what is compared inside.

    The loss is by rank (`losses.top_k`) unless another is chosen.
    """

    calibrate: bool = Field(
        True, description="false: train the quantizers that the model has, and leave a model without any as it is"
    )
    tolerance: float | None = Field(
        None, ge=0, description="leave a model as it is that rounding costs at most this many points on dev"
    )
    temperature: float = Field(1.0, gt=0, description="softens teacher and student")
    loss: Literal["kl", "dkd", "topk"] = Field("topk", description="Hinton's divergence, the decoupled, or by rank")
    attention_maps: float = Field(0.0, ge=0, description="weight of the attention maps; the teacher runs every step")
    attention_outputs: float = Field(0.0, ge=0, description="weight of what leaves the blocks of attention; likewise")


class QuantizationAwareTraining(LogitsDistillation):
    """Calibrate as `quantize.ptq` does, then train weights and scales (LSQ, ICLR 2020) against the teacher.

    The graph trained is the deployed one: batch norms folded, quantizers where the plan has them. The result is the
    state that `StudentPass` would choose, as `quantize.ptq` would store it, or `quantize.ptq`'s own where training does
    not better it. Weights of fewer bits are stored as int8: they show what these cost, and run no faster.
    With ``calibrate=false`` the plan is the Program's own, as `quantize.ptq` or `quantize.mixed` left it.
    Raises what `calibrated` raises, before any training, and `DivergedError`.
    """

    name: ClassVar[str] = "quantize.qat"
    version: ClassVar[int] = 5
    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "batchnorm_folded"})
    ensures: ClassVar[frozenset[str]] = frozenset({"trained"})
    after: ClassVar[tuple[str, ...]] = (
        "canonicalize", "search", "prune", "distill", "fold_batchnorm", "quantize.ptq", "quantize.mixed",
    )  # fmt: skip
    before: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[dict[str, str]] = {"nncf": "quantize"}
    Config: ClassVar[type[PassConfig]] = QatConfig

    def refuses(self, program: Program, target: Target, budget: Budget) -> list[str]:
        """Devices without integers, where it is to bring them."""
        return integers(target) if self.config.calibrate else []

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Calibrate and train. Metrics: those of `distill.logits` and `quantize.ptq`, or ``skipped`` with why."""
        if self.config.calibrate:
            found = calibrated(program, ctx, self.config)
        elif program.precision == "int8":
            found = Calibrated(*split(program), {"given": True})
        else:
            return PassResult(program, False, {"skipped": f"the model is {program.precision}"})
        teacher = Teacher(ctx.teacher)
        metric, score = scored(lambda state: runner(*_at(found, state)), teacher, ctx)
        before = score({})
        facts = self._spared(found, before, teacher, ctx)
        state: State = {}
        if facts is None:
            state, facts = self._trained(found, score, before, teacher, ctx)
        trained, plan = _at(found, state)
        plan.check(ctx.backend.rules)
        metrics = {"metric": metric, **facts, **counts(plan), "calibration": found.facts}
        return PassResult(quantized(trained, plan).evolve(between=program.between), True, metrics)

    def _spared(self, found: Calibrated, before: float, teacher: Teacher, ctx: PassContext) -> dict[str, Any] | None:
        """What to say of a model that rounding costs too little to train it; None where it is to be trained."""
        if self.config.tolerance is None:
            return None
        exact = scored(lambda state: scoring.scorable(found.program), teacher, ctx)[1]({})
        if exact - before > self.config.tolerance:
            return None
        reason = f"rounding costs no more than {self.config.tolerance:g} points"
        return {"skipped": reason, "exact": exact, "before": before}

    def _trained(
        self, found: Calibrated, score: Callable[[State], float], before: float, teacher: Teacher, ctx: PassContext
    ) -> tuple[State, dict[str, Any]]:
        """The state that scores best, none where training does not better it, and what to say of the training."""
        train = augmented(ctx, self.config.variants)
        ctx = replace(ctx, data=replace(ctx.data, train=train))
        inside = self._inside(found.program, ctx)
        student = inside.student if inside else found.program
        objective = self.objective(found.program, teacher, ctx, inside)
        module = fake_quantized(student, found.plan, dropout=self.config.dropout)
        settings = self._settings(found.program, ctx, None if inside else objective.count)
        result, known = self.fitted(module, objective, settings, selection(score, before, ctx), ctx)
        better = result.score is not None and result.score >= before
        return result.state if better else {}, {**described(result, before), "samples": len(train), **known}

    def _inside(self, program: Program, ctx: PassContext) -> Inside | None:
        """What is compared inside: with the teacher folded like the student, so that they share their names."""
        config = self.config
        weights = InsideWeights(config.attention_maps, config.attention_outputs, config.relation)
        if not weights:
            return None
        teacher = ctx.apply(ctx.teacher, [("canonicalize", {}), ("fold_batchnorm", {})])
        return Inside(program, teacher, weights)

    def _settings(self, program: Program, ctx: PassContext, views: int | None) -> TrainConfig:
        epochs = self.config.epochs or max(1, epochs_of(self.config, program, ctx, views) // _SHARE)
        settings = self.settings(program, ctx, epochs)
        few = self.config.bits < 8 and recipes.recipe_of(ctx.teacher) is recipes.NORMED_BY_BATCH
        return settings.model_copy(update={"lr": _FEW_BITS * settings.lr}) if few and not self.config.lr else settings


def _at(found: Calibrated, state: State) -> tuple[Program, QuantPlan]:
    """Weights and scales of a state."""
    return found.program.with_state(state), learned(found.plan, state)
