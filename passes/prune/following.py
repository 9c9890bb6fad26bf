"""What a student follows while its gates train: the teacher's logits, and by option its hidden states."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from compactor.ir.program import Program
from compactor.passes.distill.guidance import guidance
from compactor.passes.distill.layerwise import LayerwiseConfig, LayerwiseDistillation
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.distill.student import epochs_of
from compactor.passes.prune.gates import GatedStudent, Shown
from compactor.pipeline.context import PassContext
from compactor.training import Objective, layerwise
from compactor.training.cache import Teacher
from compactor.training.layerwise import Layerwise, Weights
from compactor.training.pairing import Pair
from compactor.training.positions import Stream
from compactor.training.projection import HIDDEN, Guided


@dataclass(frozen=True)
class Following:
    """The loss against the teacher, and the epochs that the effort pays for.

    ``shown`` are the hidden states that it needs of the student, ``streams`` and ``projections`` what they are.
    """

    objective: Objective
    epochs: int
    streams: tuple[Stream, ...] = ()
    projections: Mapping[str, nn.Module] | None = None

    @property
    def shown(self) -> Shown:
        """Further outputs of the student under gates."""
        return [(s.node, s.dim) for s in self.streams]

    def module(self, student: GatedStudent, program: Program) -> nn.Module:
        """What is trained: the student, with its projections if there are any."""
        if self.projections is None:
            return student
        names = (*program.outputs, *(HIDDEN + s.name for s in self.streams))
        return Guided(student, names, self.streams, self.projections)


def by_logits(program: Program, ctx: PassContext, config: LogitsConfig) -> Following:
    """Soft targets alone."""
    objective = LogitsDistillation(config).objective(program, Teacher(ctx.teacher), ctx)
    return Following(objective, epochs_of(config, program, ctx, objective.count))


def by_layers(pair: Pair, program: Program, ctx: PassContext, config: LayerwiseConfig) -> Following:
    """Soft targets and hidden states, matched anew in every step (CoFi, arXiv 2204.00408, section 3.3)."""
    train, weights = ctx.data.train, Weights(config.logits, config.hidden, temperature=config.temperature)
    reference = layerwise.reference(pair, weights)
    views = LayerwiseDistillation(config).views(program, Teacher(ctx.teacher), ctx)
    kept, epochs = guidance(pair, reference, program, views, ctx, config)
    projections = layerwise.projections(pair, train, projector=config.projector, seed=ctx.seed)
    objective = Layerwise(pair, reference, train, weights, projector=config.projector, views=views, kept=kept)
    return Following(objective, epochs, tuple(pair.streams), projections)
