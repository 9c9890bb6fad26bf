"""`distill.assistant`: for large ratios, distillation through subnets of sizes in between."""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any, ClassVar

from pydantic import Field

from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import AxisGroup, SearchSpace, space_of
from compactor.ir.subnet import Subnet
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.search.importance import unit_magnitude
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig, PassResult
from compactor.training import Result, Selection
from compactor.training.cache import Teacher

_STEP = 10.0
"""Ratio of multiply-accumulates for which one assistant stands."""


class AssistantConfig(LogitsConfig):
    """Options of `distill.assistant`: those of `distill.logits`, for every network of the chain."""

    assistants: int | None = Field(None, ge=1, description="subnets in between; one for every tenfold of arithmetic")
    ratio: float = Field(0.0, ge=0, description="do nothing for students with more than the teacher's MACs over this")


class AssistantDistillation(LogitsDistillation):
    """Teacher assistants (TAKD, arXiv 1902.03393): the teacher trains a larger subnet, that one a smaller, and so on.

    Sizes are interpolated geometrically between teacher and student; units and blocks that stay are those of the
    largest weights. Every network of the chain gets the epochs of the effort.
    """

    name: ClassVar[str] = "distill.assistant"
    version: ClassVar[int] = 3
    Config: ClassVar[type[PassConfig]] = AssistantConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Train, where the student is small enough. Raises as `distill.logits`."""
        ratio = self.canonical(ctx).cost().macs / max(1, program.cost().macs)
        if ratio < self.config.ratio:
            skipped = f"{ratio:.3g} times fewer MACs than the teacher need no assistant"
            return PassResult(program, modified=False, metrics={"skipped": skipped})
        return super().run(program, ctx)

    def train(
        self, program: Program, teacher: Teacher, selection: Selection, ctx: PassContext
    ) -> tuple[Result, dict[str, Any]]:
        """Train the assistants, then the student."""
        whole = self.canonical(ctx)
        above, described = ctx.teacher, []
        for number, subnet in enumerate(between(whole, program, self.config.assistants)):
            folder = ctx.workspace / f"assistant{number}"
            folder.mkdir(exist_ok=True)
            options = {name: getattr(self.config, name) for name in LogitsConfig.model_fields} | {"variants": 0}
            around = replace(ctx, teacher=above, workspace=folder)
            trained = LogitsDistillation(LogitsConfig(**options)).run(slice_program(whole, subnet), around)
            above = trained.program
            described.append({"macs": above.cost().macs, "score": trained.metrics.get("after")})
        result, metrics = super().train(program, Teacher(above), selection, replace(ctx, teacher=above))
        return result, {**metrics, "assistants": described}


def between(teacher: Program, student: Program, count: int | None) -> list[Subnet]:
    """Subnets of the teacher on the way to the student, the largest first; ``count`` None: by the ratio of MACs."""
    space = space_of(teacher)
    ratio = teacher.cost().macs / max(1, student.cost().macs)
    steps = max(1, round(math.log(ratio, _STEP))) if count is None else count
    sizes, dropped = extent(space, student)
    found = []
    for step in range(1, steps + 1):
        share = step / (steps + 1)
        kept = {
            g.name: _largest(teacher, space, g, g.size ** (1 - share) * sizes[g.name] ** share) for g in space.groups
        }
        found.append(space.choose(kept, dropped[: round(share * len(dropped))]))
    return found


def extent(space: SearchSpace, student: Program) -> tuple[dict[str, float], list[str]]:
    """How many units of each group a student has, and the blocks it lacks, those with the fewest parameters first.

    Groups of which it has no tensor get the mean share of the others.
    """
    known = {g.name: size for g in space.groups if (size := _size(space, g, student)) is not None}
    share = fmean(size / g.size for g in space.groups if (size := known.get(g.name))) if known else 1.0
    lacking = [b for b in space.blocks if not any(t in student.state for t in b.tensors)]
    order = sorted(lacking, key=lambda b: b.parameters)
    return {g.name: known.get(g.name, share * g.size) for g in space.groups}, [b.name for b in order]


def _size(space: SearchSpace, group: AxisGroup, student: Program) -> float | None:
    state: Mapping[str, Any] = space.program.state
    for tensor, dim, each in group.members:
        if tensor in student.state and each * group.size == state[tensor].shape[dim]:
            return float(student.state[tensor].shape[dim] / each)
    return None


def _largest(teacher: Program, space: SearchSpace, group: AxisGroup, size: float) -> tuple[int, ...]:
    count = min(group.size, max(1, round(size)))
    order = unit_magnitude(teacher, space, group).argsort(descending=True, stable=True)
    return tuple(sorted(order[:count].tolist()))
