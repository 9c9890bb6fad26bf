"""What passes share that train on the teacher's hidden states: options, and whether these are kept on disk."""

from typing import Literal

from pydantic import Field

from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.distill.student import StudentConfig, epochs_of
from compactor.pipeline.context import PassContext
from compactor.training.kept import Kept
from compactor.training.pairing import Pair
from compactor.training.projection import Guided
from compactor.training.views import Views

CACHE_GIB = 4.0
"""Most disk that the teacher's hidden states take by default."""


class GuidedConfig(StudentConfig):
    """Options of passes that train on hidden states."""

    temperature: float = Field(2.0, gt=0, description="softens teacher and student")
    layers: int = Field(4, ge=1, description="hidden states of the teacher that are learned from")
    views: int = Field(4, ge=1, description="views of each image for which hidden states are kept")
    cache: float = Field(
        CACHE_GIB, ge=0, description="GiB of disk to keep hidden states on; if too few the teacher runs in every step"
    )
    logits_if: Literal["never", "unshared", "unkept"] = Field(
        "never", description="learn logits alone if hidden states are not shared with the teacher, or also if not kept"
    )


def pair_of(program: Program, teacher: Program, config: GuidedConfig) -> Pair | None:
    """Student and teacher; None where they share no hidden state and logits will do, else `UnsupportedError`."""
    try:
        return Pair(program, teacher, config.layers)
    except UnsupportedError:
        if config.logits_if == "never":
            raise
        return None


def by_logits(config: GuidedConfig) -> LogitsDistillation:
    """What trains on logits alone instead, by its own temperature unless one was given."""
    shared = {name: getattr(config, name) for name in (*StudentConfig.model_fields, "views")}
    if "temperature" in config.model_fields_set:
        shared["temperature"] = config.temperature
    return LogitsDistillation(LogitsConfig(**shared))


def guidance(
    pair: Pair, teacher: Guided, program: Program, views: Views | None, ctx: PassContext, config: GuidedConfig
) -> tuple[Kept | None, int]:
    """The teacher's kept hidden states, None where it runs in every step, and the epochs that the effort pays for.

    States are kept where every view is shown more than once, and all fit in ``cache``.
    """
    train, count = ctx.data.train, config.views if views else 1
    epochs = epochs_of(config, program, ctx, count)
    if config.cache and epochs > count:
        folder = ctx.outputs or ctx.workspace
        kept = Kept(pair, teacher, train, folder, views=views, count=count, progress=ctx.progress)
        size = kept.bytes()
        if size is not None and size <= config.cache * 2**30:
            return kept, epochs
    return None, epochs_of(config, program, ctx, None)
