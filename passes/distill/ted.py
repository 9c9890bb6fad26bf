"""`distill.ted`: layerwise distillation through filters that keep what the task needs of a hidden state."""

from typing import Any, ClassVar

from pydantic import Field

from compactor.ir.program import Program
from compactor.passes.distill.guidance import GuidedConfig, by_logits, guidance, pair_of
from compactor.passes.distill.student import StudentPass, epochs_of
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig
from compactor.training import Result, Selection, TrainConfig, fit
from compactor.training.cache import Teacher
from compactor.training.filters import Filters, FilterTask, Partners, aligned, guided
from compactor.training.layerwise import Layerwise, Weights
from compactor.training.pairing import Pair
from compactor.training.views import Views

_SHARE = 4
"""The first stage takes a fourth of the epochs of the second."""


class TedConfig(GuidedConfig):
    """Options of `distill.ted`; what is not given is chosen by kind of model, data and effort."""

    logits: float = Field(1.0, ge=0, description="weight of the soft targets")
    hidden: float = Field(1.0, ge=0, description="weight of the filtered hidden states")
    label_weight: float = Field(1.0, ge=0, description="weight of the true labels, where there are any")
    filter_epochs: int | None = Field(None, ge=1, description="epochs of the first stage; a fourth of the second's")
    filter_lr: float = Field(1e-3, gt=0, description="highest learning rate of the first stage")


class TaskAwareDistillation(StudentPass):
    """TED (arXiv 2210.01351), in two stages, for any student sliced from its teacher.

    First, both networks frozen, each pair of layers gets linear filters with heads of their own, trained on the labels
    or, where there are none, on the teacher's logits. Then the heads go, the teacher's filters freeze, and student and
    its filters are trained. Which layers are paired is decided before, by how well they fit.
    """

    name: ClassVar[str] = "distill.ted"
    version: ClassVar[int] = 5
    Config: ClassVar[type[PassConfig]] = TedConfig

    def train(
        self, program: Program, teacher: Teacher, selection: Selection, ctx: PassContext
    ) -> tuple[Result, dict[str, Any]]:
        """Both stages."""
        config, train = self.config, ctx.data.train
        pair = pair_of(program, self.canonical(ctx), config)
        if pair is None:
            return by_logits(config).train(program, teacher, selection, ctx)
        views = self.views(program, teacher, ctx)
        stage = self._first(self.settings(program, ctx, epochs_of(config, program, ctx, None)))
        partners, filters, loss = self._filters(pair, views, stage, ctx)
        student, frozen = guided(pair, partners, filters, dropout=config.dropout)
        weights = Weights(
            logits=config.logits, hidden=config.hidden / len(partners), labels=config.label_weight,
            temperature=config.temperature,
        )  # fmt: skip
        kept, epochs = guidance(pair, frozen, program, views, ctx, config)
        if kept is None and config.logits_if == "unkept":
            return by_logits(config).train(program, teacher, selection, ctx)
        how = f"ted {stage}"
        objective = Layerwise(pair, frozen, train, weights, views=views, partners=partners, kept=kept, how=how)
        settings = self.settings(program, ctx, epochs)
        result, metrics = self.fitted(student, objective, settings, selection, ctx, own=student.own)
        matches = {pair.layers[t].name: pair.streams[s].name for t, s in partners}
        known = {"matches": matches, "kept": kept is not None}
        return result, {**metrics, **known, "filter_epochs": stage.epochs, "filter_loss": round(loss, 6)}

    def _first(self, settings: TrainConfig) -> TrainConfig:
        return TrainConfig(
            epochs=self.config.filter_epochs or max(1, settings.epochs // _SHARE),
            batch=settings.batch, accumulate=settings.accumulate, optimizer="adamw", lr=self.config.filter_lr,
            clip=1.0, seed=settings.seed,
        )  # fmt: skip

    def _filters(
        self, pair: Pair, views: Views | None, stage: TrainConfig, ctx: PassContext
    ) -> tuple[Partners, Filters, float]:
        train = ctx.data.train
        partners, starts = aligned(pair, train, ctx.seed)
        task = FilterTask(pair, partners, train, temperature=self.config.temperature, views=views)
        filters = Filters(starts, pair.classes, ctx.seed)
        result = fit(filters, task, train, stage, ctx.workspace, name="filters", progress=ctx.progress)
        filters.load_state_dict(result.state)
        return partners, filters, result.loss
