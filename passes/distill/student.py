"""What passes that train a student share: options, selection, and the frame around `fit`."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from compactor import scoring
from compactor.ir import padding
from compactor.ir.program import Program
from compactor.passes.distill import recipe as recipes
from compactor.passes.distill.variants import augmented
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.training import Objective, Result, Selection, TrainConfig, effort, fit
from compactor.training.cache import Teacher
from compactor.training.views import Views

State = Mapping[str, Tensor]


class StudentConfig(PassConfig):
    """Options of every pass that trains a student; what is not given is chosen by kind of model, data and effort."""

    epochs: int | None = Field(None, ge=1, description="passes over the training split")
    share: float = Field(1.0, gt=0, le=1, description="without epochs: how much of what the effort pays for to spend")
    lr: float | None = Field(None, gt=0, description="highest learning rate")
    batch: int | None = Field(None, ge=1, description="samples per step")
    accumulate: int = Field(1, ge=1, description="micro-batches per step")
    weight_decay: float | None = Field(None, ge=0, description="decay of matrices and filters")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    dropout: bool = Field(False, description="keep the model's dropout active")
    shift: int | None = Field(None, ge=0, description="pixels by which views are shifted; an eighth of the image")
    flip: Literal["auto", "on", "off"] = Field("auto", description="mirror images; auto: if the teacher does not mind")
    variants: int | None = Field(
        None, ge=0, description="teacher-labelled variants of every sample; 3 in effort max, else none"
    )
    seconds: float = Field(0.0, ge=0, description="safety limit of training time, 0 for none")


class StudentPass(Pass):
    """Base: trains, and returns the last weights that score as well on ``dev`` as any, or the student as it was.

    The score is accuracy where ``dev`` has labels, else agreement with the teacher; as well means within a standard
    error.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"trained"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)
    before: ClassVar[tuple[str, ...]] = ("fold_batchnorm", "quantize.ptq", "quantize.cast", "quantize.fastest")
    Config: ClassVar[type[PassConfig]] = StudentConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Train.

        Raises `DivergedError`, `UnsupportedError` for outputs that are not class logits, `InputError` for less data
        than a batch.
        """
        if program.fingerprint == ctx.teacher.fingerprint:
            return PassResult(program, modified=False, metrics={"skipped": "the student is the teacher"})
        train = augmented(ctx, self.config.variants)
        ctx = replace(ctx, data=replace(ctx.data, train=train))
        teacher = Teacher(ctx.teacher)
        metric, score = scored(program.with_state, teacher, ctx)
        before = score(program.state)
        result, metrics = self.train(program, teacher, selection(score, before, ctx), ctx)
        better = result.score is not None and result.score >= before
        metrics = {"metric": metric, **described(result, before), "samples": len(train), **metrics}
        return PassResult(program.with_state(result.state) if better else program, modified=better, metrics=metrics)

    @abstractmethod
    def train(
        self, program: Program, teacher: Teacher, selection: Selection, ctx: PassContext
    ) -> tuple[Result, dict[str, Any]]:
        """The trained state of the Program, and what to say of the training."""

    def fitted(
        self,
        module: nn.Module,
        objective: Objective,
        config: TrainConfig,
        selection: Selection,
        ctx: PassContext,
        *,
        own: Callable[[State], State] = dict,
    ) -> tuple[Result, dict[str, Any]]:
        """The result of `fit`, with ``own`` taking the Program's part of the module's state."""
        result = fit(
            module, objective, ctx.data.train, config, ctx.workspace,
            selection=replace(selection, score=lambda state: selection.score(own(state))), progress=ctx.progress,
        )  # fmt: skip
        known = {"batch": config.batch, "lr": config.lr, "optimizer": config.optimizer}
        return replace(result, state=dict(own(result.state))), known

    def canonical(self, ctx: PassContext) -> Program:
        """The teacher in the form that the student was sliced from."""
        return ctx.apply(ctx.teacher, [("canonicalize", {})])

    def views(self, program: Program, teacher: Teacher, ctx: PassContext) -> Views | None:
        """Shifted, perhaps mirrored images; None for what is no image, or made up."""
        if not recipes.takes_images(program) or ctx.data.synthetic:
            return None
        flip = self.config.flip == "on" or (
            self.config.flip == "auto" and recipes.mirrored_agrees(teacher, ctx.data.dev)
        )
        shift = self.config.shift
        if shift is None:
            shift = min(program.inputs[0].shape[2:]) // 8
        return Views(len(ctx.data.train), shift, flip, ctx.seed) if shift or flip else None

    def settings(self, program: Program, ctx: PassContext, epochs: int) -> TrainConfig:
        """How the student is trained for so many epochs."""
        recipe, config = recipes.recipe_of(program), self.config
        batch = recipes.batch_of(program, len(ctx.data.train), config.batch)
        return TrainConfig(
            epochs=epochs,
            batch=batch,
            accumulate=config.accumulate,
            optimizer=recipe.optimizer,
            lr=config.lr or recipes.rate(recipe, batch),
            weight_decay=recipe.weight_decay if config.weight_decay is None else config.weight_decay,
            clip=recipe.clip,
            ema=config.ema,
            seed=ctx.seed,
            seconds=config.seconds,
        )


def described(result: Result, before: float) -> dict[str, Any]:
    """What to say of a training in metrics; ``before`` is the score without it."""
    facts = {
        "before": before,
        "after": max(before, result.score or 0.0),
        "scores": [list(pair) for pair in result.scores],
        "epochs": result.epochs,
        "steps": result.steps,
    }
    return {**facts, "stopped": result.stopped} if result.stopped else facts


def epochs_of(config: StudentConfig, program: Program, ctx: PassContext, count: int | None) -> int:
    """Epochs that were asked for or that the effort pays for.

    The teacher runs once for each of ``count`` views, or with None in every step.
    """
    if config.epochs:
        return config.epochs
    train = ctx.data.train
    if count is not None:
        return effort.epochs(ctx.effort, program, ctx.teacher, train, count, share=config.share)
    sample = 3 * effort.sample_macs(program, train) + effort.sample_macs(ctx.teacher, train)
    return effort.affordable(ctx.effort, sample * len(train), share=config.share)


def selection(score: Callable[[State], float], before: float, ctx: PassContext) -> Selection:
    """By a score in percent of the samples of ``dev``; a training that does not better ``before`` is not wanted."""
    return Selection(score, lambda percent: math.sqrt(percent * (100 - percent) / len(ctx.data.dev)), before)


def scored(
    model: Callable[[State], scoring.Run], teacher: Teacher, ctx: PassContext
) -> tuple[str, Callable[[State], float]]:
    """The score that decides, and how to get it for a state of the ``model``. Padding does not count."""
    dev = ctx.data.dev
    if dev.labelled:
        return "dev accuracy", lambda state: scoring.accuracy(model(state), dev)
    reference: list[Tensor] = []
    mask = padding.mask_input(ctx.teacher)

    def classes(logits: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        return logits.argmax(-1)[padding.tokens(logits, inputs, mask)]

    def agreement(state: State) -> float:
        if not reference:
            reference.extend(classes(teacher(b.inputs), b.inputs) for b in scoring.batches(dev, 64))
        student = model(state)
        pairs = zip(scoring.batches(dev, 64), reference, strict=True)
        found = [classes(scoring.logits(student, b.inputs), b.inputs) == known for b, known in pairs]
        return 100.0 * sum(int(f.sum()) for f in found) / sum(f.numel() for f in found)

    return "dev agreement", agreement
