"""A device on which widths count, and contexts around it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from compactor.ir.program import Program
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.pipeline.context import PassContext
from compactor.targets.device import ProfileTarget
from compactor.targets.registry import profiles
from tests.models import program
from tests.passes.support import Tensors, context

FAMILIES = ("resnet_b", "mobilenet_v2", "bert", "vit")


def target() -> ProfileTarget:
    """A small CPU whose kernels and calls cost next to nothing by themselves, so that small models can get faster."""
    profile = profiles.resolve("raspberry-pi-4").profile
    model = profile.model.model_copy(update={"floor_us": 0.02, "call_us": 0.1})
    return ProfileTarget(profile.model_copy(update={"model": model}))


def teacher(name: str) -> Program:
    """A canonical teacher."""
    return canonical(program(name))[0]


def around(model: Program, folder: Path, samples: int = 12, **options: Any) -> PassContext:
    """A context with random samples, on that device."""
    folder.mkdir(exist_ok=True)
    train = Tensors(model.example_inputs(samples, seed=7))
    return replace(context(model, folder, train=train, labels=False), target=target(), **options)


def fastest(model: Program, ctx: PassContext) -> float:
    """Predicted milliseconds in the device's fastest precision."""
    return min(ctx.target.predict(model.kernels(), p).p50 for p in ctx.target.precisions)


def latency(model: Program, ctx: PassContext, share: float = 0.5) -> str:
    """The option that asks for this share of the latency."""
    return f"{share * fastest(model, ctx):.12f}ms"
