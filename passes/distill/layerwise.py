"""`distill.layerwise`: train a student on the teacher's hidden states too, wherever in its depth they fit best."""

from typing import Any, ClassVar

from pydantic import Field

from compactor.ir.program import Program
from compactor.passes.distill.guidance import GuidedConfig, by_logits, guidance, pair_of
from compactor.passes.distill.student import StudentPass
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig
from compactor.training import Result, Selection, layerwise
from compactor.training.cache import Teacher
from compactor.training.layerwise import Layerwise, Weights
from compactor.training.projection import Projector


class LayerwiseConfig(GuidedConfig):
    """Options of `distill.layerwise`; what is not given is chosen by kind of model, data and effort."""

    logits: float = Field(0.1, ge=0, description="weight of the soft targets", json_schema_extra={"search": [0.1, 0.5]})
    hidden: float = Field(
        0.9, ge=0, description="weight of the hidden states", json_schema_extra={"search": [0.5, 0.9]}
    )
    attention: float = Field(0.0, ge=0, description="weight of the attention maps")
    relation: float = Field(0.0, ge=0, description="weight of the last layer's relations")
    projector: Projector = Field("auto", description="linear, orthogonal, or auto: orthogonal where widths differ")


class LayerwiseDistillation(StudentPass):
    """CoFi's layerwise distillation (arXiv 2204.00408, section 3.3), for any student sliced from its teacher.

    Which layer of the student learns from which of the teacher's is chosen anew in every step. Widths that differ are
    bridged by VkD's orthogonal projection (arXiv 2403.06213). True labels are not used.
    """

    name: ClassVar[str] = "distill.layerwise"
    version: ClassVar[int] = 5
    Config: ClassVar[type[PassConfig]] = LayerwiseConfig

    def train(
        self, program: Program, teacher: Teacher, selection: Selection, ctx: PassContext
    ) -> tuple[Result, dict[str, Any]]:
        """Train on logits and hidden states."""
        config, train = self.config, ctx.data.train
        pair = pair_of(program, self.canonical(ctx), config)
        if pair is None:
            return by_logits(config).train(program, teacher, selection, ctx)
        weights = Weights(config.logits, config.hidden, config.attention, config.relation, 0.0, config.temperature)
        reference, views = layerwise.reference(pair, weights), self.views(program, teacher, ctx)
        # Attention maps and relations are as large as all hidden states together.
        inside = config.model_copy(update={"cache": 0.0}) if weights.attention or weights.relation else config
        kept, epochs = guidance(pair, reference, program, views, ctx, inside)
        if kept is None and config.logits_if == "unkept":
            return by_logits(config).train(program, teacher, selection, ctx)
        module = layerwise.student(
            pair, train, weights, projector=config.projector, dropout=config.dropout, seed=ctx.seed
        )
        objective = Layerwise(pair, reference, train, weights, projector=config.projector, views=views, kept=kept)
        settings = self.settings(program, ctx, epochs)
        result, metrics = self.fitted(module, objective, settings, selection, ctx, own=module.own)
        matches = objective.matches(module, layerwise.first(train, ctx.seed))
        return result, {**metrics, "matches": matches, "kept": kept is not None}
