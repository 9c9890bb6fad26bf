"""Planning: everything that can be refused before any work is refused here, in under a second."""

import importlib.util
from collections.abc import Sequence

from compactor.backend import Backend
from compactor.budget import Budget
from compactor.errors import MissingRuntimeError, UnsupportedError, UsageError
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.pipeline import properties
from compactor.pipeline.passes import Pass
from compactor.pipeline.text import GROUP, Pipeline
from compactor.target import Target, native

_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8}
_SMALLEST = (Kernel("linear", 1, 1, 1, 1, "smallest"),)


def plan(pipeline: Pipeline, program: Program, *, target: Target, backend: Backend, budget: Budget) -> None:
    """Check a whole pipeline for this teacher, target and budget.

    Raises:
        UsageError: passes in the wrong order, a property that nothing ensures, a budget that cannot be met.
        MissingRuntimeError: a library that a pass needs is not installed.
        UnsupportedError: the target or its backend cannot take the Program or a pass.
    """
    check_order(pipeline.passes)
    check_properties(pipeline.passes, properties.initial(program))
    check_needs(pipeline.passes)
    check_budget(pipeline, program, target, budget)
    refusals = [f"{step.name}: {reason}" for step in pipeline for reason in step.refuses(program, target, budget)]
    if refusals:
        raise UnsupportedError(
            f"the pipeline cannot serve target {target.name!r}: " + "; ".join(refusals),
            "take the pass out of --pipeline, or choose another target",
        )
    # Where the device has no float32, the teacher is lowered in what it has, and the student by a pass.
    reasons = backend.supports(program.evolve(precision=native(target, program.precision)), target)
    if reasons:
        raise UnsupportedError(
            f"{backend.name} cannot lower this model for {target.name!r}: " + "; ".join(reasons),
            "choose another target, or change the model",
        )


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(pattern + ".")


def check_order(passes: Sequence[Pass]) -> None:
    """Raise `UsageError` for two passes in an order that one of them rules out."""
    for position, late in enumerate(passes):
        for early in passes[:position]:
            ruled_out = [_matches(early.name, p) for p in late.before] + [_matches(late.name, p) for p in early.after]
            if any(ruled_out) and early.name != late.name:
                raise UsageError(
                    f"pass {late.name!r} must come before {early.name!r}, the pipeline has it after",
                    f"write ...,{late.name},...,{early.name},...",
                )


def check_properties(passes: Sequence[Pass], held: frozenset[str]) -> None:
    """Raise `UsageError` for a pass whose needs no earlier pass ensures, or an earlier one breaks."""
    for position, step in enumerate(passes):
        for missing in sorted(step.requires - held):
            broken = next((p.name for p in reversed(passes[:position]) if missing in p.breaks), None)
            before = f"{broken!r} breaks it" if broken else "nothing before it ensures that"
            raise UsageError(
                f"pass {step.name!r} needs a Program that is {missing!r}, and {before}",
                f"put {_ensurers(missing)} before it",
            )
        held = properties.flow(held, step)


def _ensurers(name: str) -> str:
    from compactor import registry

    found = [p for p in registry.names(GROUP) if name in registry.load(GROUP, p).ensures]
    return " or ".join(found) or "a pass that ensures it (none is registered)"


def check_needs(passes: Sequence[Pass]) -> None:
    """Raise `MissingRuntimeError` naming every library that is missing, and the extras that bring them."""
    missing = {
        (step.name, module, extra)
        for step in passes
        for module, extra in step.needs.items()
        if importlib.util.find_spec(module) is None
    }
    if missing:
        raise MissingRuntimeError(
            "; ".join(f"pass {name!r} needs {module}, which is not installed" for name, module, _ in sorted(missing)),
            "pip install " + " ".join(sorted({f"'compactor[{extra}]'" for _, _, extra in missing})),
        )


def check_budget(pipeline: Pipeline, program: Program, target: Target, budget: Budget) -> None:
    """Raise `UsageError` for a limit that no student of this teacher could meet on this target."""
    for name, value in (("latency", budget.latency), ("latency share", budget.latency_share), ("size", budget.size)):
        if value is not None and not value > 0:
            raise UsageError(f"the {name} budget {value} is not positive", "give a positive limit")
    if budget.latency is not None:
        _check_latency(budget.latency, target)
    if budget.size is not None:
        _check_size(budget.size, pipeline, program, target)


def _check_latency(limit: float, target: Target) -> None:
    floor = target.floor(_SMALLEST)
    if limit < floor:
        raise UsageError(
            f"latency {limit:g} ms is impossible on {target.name}: one smallest kernel alone takes {floor:g} ms there",
            "raise --latency",
        )


def _check_size(limit: int, pipeline: Pipeline, program: Program, target: Target) -> None:
    if any(_matches(name, group) for name in pipeline.names for group in ("search", "prune")):
        return  # the searching pass knows what it cannot remove, and says so in `refuses`
    bits = min((_BITS[p] for p in target.precisions), default=32)
    parameters = sum(program.state[name].numel() for name in program.trainable)
    floor = parameters * bits // 8
    if limit < floor:
        raise UsageError(
            f"size {limit} bytes is impossible: {parameters} parameters take {floor} bytes at {bits} bits, "
            "and no pass of the pipeline removes any",
            "raise --size, or add a search pass such as search.uniform",
        )
