"""`distill.logits`: train a student on the teacher's soft targets; labels are optional."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from compactor.ir import padding
from compactor.ir.program import Program
from compactor.passes.distill.student import StudentConfig, StudentPass, epochs_of
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig
from compactor.training import Result, Selection, taps
from compactor.training.cache import Teacher
from compactor.training.distillation import Decoupled, Distillation, Draws, Guide, Relation, Term, TopK


class LogitsConfig(StudentConfig):
    """Options of `distill.logits`; what is not given is chosen by kind of model, data and effort."""

    temperature: float = Field(
        4.0, gt=0, description="softens teacher and student", json_schema_extra={"search": [1, 2, 4, 8]}
    )
    loss: Literal["kl", "dkd", "topk"] = Field("kl", description="Hinton's divergence, the decoupled, or by rank")
    alpha: float = Field(1.0, ge=0, description="dkd: weight of the target class")
    beta: float = Field(8.0, ge=0, description="dkd: weight of the other classes")
    warmup: float = Field(1 / 12, ge=0, le=1, description="dkd: share of the steps over which the loss rises")
    k: int = Field(10, ge=1, description="topk: best classes of the teacher that are told apart from the others")
    tail: float = Field(
        1.0, ge=0, description="topk: weight of the divergence among the others", json_schema_extra={"search": [0.1, 2]}
    )
    direction: Literal["forward", "reverse"] = Field(
        "forward", description="topk: expectation under the teacher, or not"
    )
    draws: int = Field(0, ge=0, description="keep this many classes drawn from the teacher, not all logits; 0: all")
    relation: float = Field(
        0.0, ge=0, description="weight of the last layer's relations; the teacher runs in every step"
    )
    label_weight: float = Field(0.0, ge=0, le=1, description="share of the true labels, where there are any")
    views: int = Field(4, ge=1, description="views of each image that the teacher answers for")
    keep: bool = Field(True, description="keep the teacher's outputs, so that it runs once per view")


class LogitsDistillation(StudentPass):
    """Hinton's distillation (arXiv 1503.02531): KL to the teacher's logits at a temperature.

    Or decoupled distillation (DKD, arXiv 2203.08679), or by rank (`losses.top_k`); and by weight the relation loss of
    DisWOT's distiller (arXiv 2303.15678). The weights returned are those that score best on ``dev`` (accuracy where it
    has labels, else agreement with the teacher); a student that training does not improve is returned as it was.
    """

    name: ClassVar[str] = "distill.logits"
    version: ClassVar[int] = 6
    Config: ClassVar[type[PassConfig]] = LogitsConfig

    def train(
        self, program: Program, teacher: Teacher, selection: Selection, ctx: PassContext
    ) -> tuple[Result, dict[str, Any]]:
        """Train on the logits."""
        config = self.config
        student = taps.tapped(program) if config.relation else program
        relation = Relation(self.canonical(ctx), student.outputs, config.relation) if config.relation else None
        objective = self.objective(program, teacher, ctx, relation)
        views, count = objective.views, objective.count
        epochs = epochs_of(config, program, ctx, None if relation else count)
        module = student.module(train=True, dropout=config.dropout)
        result, metrics = self.fitted(module, objective, self.settings(program, ctx, epochs), selection, ctx)
        labels = bool(config.label_weight and ctx.data.train.labelled)
        return result, {**metrics, "views": count, "flip": bool(views and views.flip), "labels": labels}

    def objective(
        self, program: Program, teacher: Teacher, ctx: PassContext, guide: Guide | None = None
    ) -> Distillation:
        """What is minimised: the teacher's soft targets on views of the training split."""
        config = self.config
        views = self.views(program, teacher, ctx)
        return Distillation(
            teacher=teacher,
            split=ctx.data.train,
            folder=ctx.outputs or ctx.workspace,
            temperature=config.temperature,
            label_weight=config.label_weight,
            term=self.term(),
            guide=guide,
            draws=Draws(config.draws, config.temperature, ctx.seed) if config.draws else None,
            views=views,
            count=config.views if views else 1,
            mask=padding.mask_input(program),
            keep=config.keep,
            progress=ctx.progress,
        )

    def term(self) -> Term | None:
        """What takes the place of the plain divergence, if anything."""
        config = self.config
        if config.loss == "topk":
            return TopK(config.k, config.tail, config.direction == "reverse")
        return Decoupled(config.alpha, config.beta, config.warmup) if config.loss == "dkd" else None
