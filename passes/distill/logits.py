"""`distill.logits`: train a student on the teacher's soft targets; labels are optional."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from compactor import scoring
from compactor.ir.program import Program
from compactor.passes.distill import recipe as recipes
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.training import TrainConfig, effort, fit
from compactor.training.cache import Teacher
from compactor.training.distillation import Distillation
from compactor.training.views import Views


class LogitsConfig(PassConfig):
    """Options of `distill.logits`; what is not given is chosen by kind of model, data and effort."""

    epochs: int | None = Field(None, ge=1, description="passes over the training split")
    lr: float | None = Field(None, gt=0, description="highest learning rate")
    batch: int | None = Field(None, ge=1, description="samples per step")
    accumulate: int = Field(1, ge=1, description="micro-batches per step")
    weight_decay: float | None = Field(None, ge=0, description="decay of matrices and filters")
    temperature: float = Field(
        4.0, gt=0, description="softens teacher and student", json_schema_extra={"search": [1, 2, 4, 8]}
    )
    label_weight: float = Field(0.0, ge=0, le=1, description="share of the true labels, where there are any")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    dropout: bool = Field(False, description="keep the model's dropout active")
    views: int = Field(4, ge=1, description="views of each image that the teacher answers for")
    shift: int | None = Field(None, ge=0, description="pixels by which views are shifted; an eighth of the image")
    flip: Literal["auto", "on", "off"] = Field("auto", description="mirror images; auto: if the teacher does not mind")
    keep: bool = Field(True, description="keep the teacher's outputs, so that it runs once per view")
    seconds: float = Field(0.0, ge=0, description="safety limit of training time, 0 for none")


class LogitsDistillation(Pass):
    """Hinton's distillation (arXiv 1503.02531): KL to the teacher's logits at a temperature.

    The weights returned are those that score best on ``dev`` (accuracy where it has labels, else agreement with the
    teacher); a student that training does not improve is returned as it was.
    """

    name: ClassVar[str] = "distill.logits"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"trained"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)
    before: ClassVar[tuple[str, ...]] = ("fold_batchnorm", "quantize.ptq", "quantize.cast", "quantize.fastest")
    Config: ClassVar[type[PassConfig]] = LogitsConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Train. Raises `DivergedError`, `UnsupportedError` for outputs that are not class logits."""
        if program.fingerprint == ctx.teacher.fingerprint:
            return PassResult(program, modified=False, metrics={"skipped": "the student is the teacher"})
        teacher = Teacher(ctx.teacher)
        views = self._views(program, teacher, ctx)
        count = self.config.views if views else 1
        objective = Distillation(
            teacher=teacher,
            split=ctx.data.train,
            workspace=ctx.workspace,
            temperature=self.config.temperature,
            label_weight=self.config.label_weight,
            views=views,
            count=count,
            keep=self.config.keep,
            progress=ctx.progress,
        )
        config = self._training(program, ctx, count)
        metric, evaluate = _selection(program, teacher, ctx)
        before = evaluate(program.state)
        module = program.module(train=True, dropout=self.config.dropout)
        result = fit(module, objective, ctx.data.train, config, ctx.workspace, evaluate=evaluate, progress=ctx.progress)
        better = result.score is not None and result.score >= before
        metrics: dict[str, Any] = {
            "metric": metric,
            "before": before,
            "after": max(before, result.score or 0.0),
            "scores": [list(pair) for pair in result.scores],
            "epochs": result.epochs,
            "steps": result.steps,
            "batch": config.batch,
            "lr": config.lr,
            "optimizer": config.optimizer,
            "views": count,
            "flip": bool(views and views.flip),
            "labels": bool(self.config.label_weight and ctx.data.train.labelled),
        }
        if result.stopped:
            metrics["stopped"] = result.stopped
        return PassResult(program.with_state(result.state) if better else program, modified=better, metrics=metrics)

    def _views(self, program: Program, teacher: Teacher, ctx: PassContext) -> Views | None:
        if not recipes.takes_images(program) or ctx.data.synthetic:
            return None
        flip = self.config.flip == "on" or (
            self.config.flip == "auto" and recipes.mirrored_agrees(teacher, ctx.data.dev)
        )
        shift = self.config.shift
        if shift is None:
            shift = min(program.inputs[0].shape[2:]) // 8
        return Views(len(ctx.data.train), shift, flip, ctx.seed) if shift or flip else None

    def _training(self, program: Program, ctx: PassContext, views: int) -> TrainConfig:
        recipe, config, train = recipes.recipe_of(program), self.config, ctx.data.train
        return TrainConfig(
            epochs=config.epochs or effort.epochs(ctx.effort, program, ctx.teacher, train, views),
            batch=config.batch or recipes.batch_size(recipe, len(train)),
            accumulate=config.accumulate,
            optimizer=recipe.optimizer,
            lr=config.lr or recipe.lr,
            weight_decay=recipe.weight_decay if config.weight_decay is None else config.weight_decay,
            clip=recipe.clip,
            ema=config.ema,
            seed=ctx.seed,
            seconds=config.seconds,
        )


def _selection(program: Program, teacher: Teacher, ctx: PassContext) -> tuple[str, Any]:
    dev = ctx.data.dev
    if dev.labelled:
        return "dev accuracy", lambda state: scoring.accuracy(program.with_state(state), dev)
    reference: list[Tensor] = []

    def agreement(state: Mapping[str, Tensor]) -> float:
        if not reference:
            reference.extend(teacher(b.inputs).argmax(-1) for b in scoring.batches(dev, 64))
        known = iter(reference)
        student = program.with_state(state)
        found = [scoring.logits(student, b.inputs).argmax(-1) == next(known) for b in scoring.batches(dev, 64)]
        return 100.0 * sum(int(f.sum()) for f in found) / sum(f.numel() for f in found)

    return "dev agreement", agreement
