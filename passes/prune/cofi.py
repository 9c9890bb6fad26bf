"""`prune.cofi`: structured pruning, coarse and fine together, to a latency on the target, a size or MACs.

CoFi (Xia et al., ACL 2022, arXiv 2204.00408) on the search space of any Program. Ours: the constraint may be the
predicted latency of the target, through the same expected gates; gates of units act where their values are read.
"""

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field

from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.space import AxisGroup, SearchSpace, space_of
from compactor.ir.subnet import Subnet
from compactor.passes.distill import recipe as recipes
from compactor.passes.distill.guidance import CACHE_GIB, pair_of
from compactor.passes.distill.layerwise import LayerwiseConfig, LayerwiseDistillation
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.distill.student import StudentConfig, StudentPass
from compactor.passes.prune.choosing import Chooser, uniform
from compactor.passes.prune.constraint import Aim, Constraint, ConstraintConfig, aim_of, prunable
from compactor.passes.prune.following import Following, by_layers, by_logits
from compactor.passes.prune.gates import GatedStudent
from compactor.passes.prune.lagrangian import Pruning
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.training import TrainConfig, fit

_LAYERWISE = 0.9
_STEPS = 1000
"""Of pruning, that do by default."""
_TRAVEL = 50.0
"""Distance that log alpha may travel in a short run, against 0.01 per step of the paper."""


class CofiConfig(ConstraintConfig, LogitsConfig):
    """Options of `prune.cofi`; those of `distill.logits` hold for fine-tuning, and as far as it goes for pruning.

    With ``layerwise`` both follow hidden states as `distill.layerwise` does, and ``label_weight``, ``loss`` and
    ``relation`` do not count.
    """

    width: bool | None = Field(
        None, description="remove units of axis groups; by default where narrower kernels save time, or blocks are few"
    )
    prune_epochs: int | None = Field(
        None, ge=1, description="passes over the data while pruning; half of the epochs, or what makes a thousand steps"
    )
    prune_lr: float | None = Field(None, gt=0, description="highest learning rate of the weights while pruning")
    gate_lr: float | None = Field(None, gt=0, description="learning rate of gates and multipliers; by number of steps")
    warmup: int = Field(
        0, ge=0, description="epochs of distillation first, where the student is no copy of the teacher"
    )
    ramp: float = Field(0.6, gt=0, le=1, description="share of pruning in which the constraint tightens")
    start: float = Field(5.0, description="log alpha at the start (10 in the paper, which takes longer to prune)")
    layerwise: float | None = Field(
        None, ge=0, le=1, description="weight of hidden states against logits; in effort max 0.9, else none"
    )
    layers: int = Field(4, ge=1, description="hidden states of the teacher that are learned from")
    cache: float = Field(CACHE_GIB, ge=0, description="GiB of disk to keep the teacher's hidden states on")
    one_sided: bool = Field(False, description="do not pull a student that is below the constraint back up to it")


class CofiPruning(Pass):
    """Warm up, prune under gates, slice to the subnet that meets the constraint, fine-tune: all against the teacher.

    Each of the three trainings has its own optimizer and checkpoints; a stopped run goes on where it was. Raises
    `UsageError` for a constraint that cannot be reached, `InputError` for less data than a batch, `DivergedError`.
    """

    name: ClassVar[str] = "prune.cofi"
    version: ClassVar[int] = 6
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"trained"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "search")
    before: ClassVar[tuple[str, ...]] = ("fold_batchnorm", "quantize")
    Config: ClassVar[type[PassConfig]] = CofiConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Prune."""
        config, space = self.config, space_of(program)
        verify_rules(space)
        groups, blocks = prunable(space, config), [b.name for b in space.blocks] if config.depth else []
        least = self._chooser(space, groups, *uniform(space, groups, config.depth)).least
        aim = aim_of(program, space, config, ctx, least)
        if aim.met:
            return PassResult(program, False, aim.skipped())
        aim.check(least)
        if config.width is None:
            groups = aim.narrowing(groups, blocks)
        weight = self._layerwise(ctx)
        program = self._warmed_up(program, ctx, weight)
        student, pruning = self._pruned(program, space, groups, blocks, aim.constraint, ctx, weight)
        sliced, subnet = self._sliced(program, student, groups, aim)
        tuned = self._tuning(weight).run(sliced, ctx)
        metrics: dict[str, Any] = {
            **aim.metrics(subnet),
            "expected": aim.constraint.expected(*student.gates.probabilities()).item(),
            "pruning": pruning,
            "finetuning": tuned.metrics,
        }
        return PassResult(tuned.program, True, metrics)

    # -- phases ----------------------------------------------------------------------------------------------------

    def _warmed_up(self, program: Program, ctx: PassContext, weight: float) -> Program:
        """The student distilled first; nothing is to be learned where it is the teacher."""
        if not self.config.warmup:
            return program
        folder = ctx.workspace / "warmup"
        folder.mkdir(exist_ok=True)
        return self._tuning(weight, epochs=self.config.warmup).run(program, replace(ctx, workspace=folder)).program

    def _pruned(
        self,
        program: Program,
        space: SearchSpace,
        groups: list[AxisGroup],
        blocks: list[str],
        constraint: Constraint,
        ctx: PassContext,
        weight: float,
    ) -> tuple[GatedStudent, dict[str, Any]]:
        """The student with trained gates and weights, and what to say of the training."""
        config, following = self.config, self._following(program, ctx, weight)
        training = self._training(program, ctx, following.epochs)
        student = GatedStudent.of(
            program, space, [g.name for g in groups], blocks,
            start=config.start, dropout=config.dropout, seed=ctx.seed, shown=following.shown,
        )  # fmt: skip
        module = following.module(student, program)
        objective = Pruning(student, following.objective, constraint, config.ramp, config.one_sided)
        steps = training.epochs * max(1, len(ctx.data.train) // training.batch)
        rate = config.gate_lr or max(0.01, _TRAVEL / steps)
        own = (student.gates.log_alpha, student.multipliers)
        rates = {name: rate for name, p in module.named_parameters() if any(p is o for o in own)}
        result = fit(
            module, objective, ctx.data.train, training, ctx.workspace,
            name="pruning", progress=ctx.progress, rates=rates,
        )  # fmt: skip
        module.load_state_dict(result.state)
        return student, {
            "steps": result.steps,
            "epochs": result.epochs,
            "multipliers": student.multipliers.tolist(),
            "layerwise": weight if following.projections else 0.0,
        }

    def _training(self, program: Program, ctx: PassContext, whole: int) -> TrainConfig:
        config = self.config
        batch = recipes.batch_of(program, len(ctx.data.train), config.batch)
        enough = math.ceil(_STEPS * batch / len(ctx.data.train))
        return TrainConfig(
            epochs=config.prune_epochs or max(1, min(whole // 2, enough)),
            batch=batch,
            accumulate=config.accumulate,
            optimizer="adamw",
            lr=config.prune_lr or _rate(program, batch),
            weight_decay=recipes.OTHERS.weight_decay if config.weight_decay is None else config.weight_decay,
            clip=recipes.OTHERS.clip,
            seed=ctx.seed,
            seconds=config.seconds,
        )

    def _sliced(
        self, program: Program, student: GatedStudent, groups: list[AxisGroup], aim: Aim
    ) -> tuple[Program, Subnet]:
        """The student that the gates leave, and its subnet."""
        with torch.no_grad():
            chooser = self._chooser(aim.space, groups, *student.gates.odds())
            folded = program.with_state(student.gated.folded(student.gates.values()))
        return aim.sliced(folded, chooser, self.config.rounds)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _chooser(self, space: SearchSpace, groups: list[AxisGroup], units: Any, blocks: Any) -> Chooser:
        config = self.config
        return Chooser(space, groups, units, blocks, smallest=config.smallest, multiple=config.multiple)

    def _layerwise(self, ctx: PassContext) -> float:
        """The weight of hidden states."""
        asked = self.config.layerwise
        return float(asked) if asked is not None else _LAYERWISE if ctx.effort == "max" else 0.0

    def _following(self, program: Program, ctx: PassContext, weight: float) -> Following:
        if weight:
            # Without hidden states in common: an error for who asked for them, logits by default.
            config = self._layers(weight, logits_if="unshared" if self.config.layerwise is None else "never")
            pair = pair_of(program, LayerwiseDistillation(config).canonical(ctx), config)
            if pair is not None:
                return by_layers(pair, program, ctx, config)
        return by_logits(program, ctx, self._logits())

    def _tuning(self, weight: float, **changes: Any) -> StudentPass:
        if weight:
            return LayerwiseDistillation(self._layers(weight, logits_if="unshared", **changes))
        return LogitsDistillation(self._logits(**changes))

    def _logits(self, **changes: Any) -> LogitsConfig:
        # Our warm-up is counted in epochs; that of the decoupled loss keeps its default.
        own = {name: getattr(self.config, name) for name in LogitsConfig.model_fields if name != "warmup"}
        return LogitsConfig(**{**own, **changes})

    def _layers(self, weight: float, **changes: Any) -> LayerwiseConfig:
        shared = (*StudentConfig.model_fields, "temperature", "views", "layers", "cache")
        own = {name: getattr(self.config, name) for name in shared}
        return LayerwiseConfig(**{**own, "logits": 1 - weight, "hidden": weight, **changes})


def _rate(program: Program, batch: int) -> float:
    """The rate of AdamW for the weights: networks with batch norms bear more."""
    return recipes.rate(recipes.OTHERS, batch) if recipes.recipe_of(program) is recipes.OTHERS else 1e-3
