"""`search.uniform`: uniform depth and width, ranked by importance, at the largest size that meets the budget.

The baseline that every cleverer search has to beat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from compactor.budget import milliseconds
from compactor.errors import UsageError
from compactor.ir.kernels import Kernel
from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace, space_of
from compactor.passes.search.importance import block_damage, unit_magnitude
from compactor.passes.search.ladder import Candidate, candidates
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult


class UniformConfig(PassConfig):
    """Options of `search.uniform`.

    Without a latency budget the goal is the teacher's latency, in its fastest precision or not, over ``speedup``.
    """

    latency: str | None = Field(None, description="latency to meet, like 2ms; the build's budget when absent")
    speedup: float = Field(4.0, gt=1, description="without a latency budget: the teacher's float32 latency over this")
    margin: float = Field(0.9, gt=0, le=1, description="share of the latency that the student may use")
    depth: bool = Field(True, description="remove blocks")
    width: bool = Field(True, description="remove units of axis groups")
    hidden: bool = Field(False, description="let the residual axis of transformers shrink too")
    smallest: float = Field(0.125, gt=0, le=1, description="smallest width")
    multiple: int = Field(8, ge=1, description="widths are multiples of this where an axis is long enough")
    samples: int = Field(128, ge=1, description="calibration samples for ranking blocks")
    rounds: int = Field(4, ge=1, description="measurements with which predictions are corrected")


@dataclass(frozen=True)
class _Option:
    """A candidate with its cost."""

    candidate: Candidate
    kernels: tuple[Kernel, ...]
    parameters: int
    macs: int
    bytes: int


class UniformSearch(Pass):
    """Keep the largest candidate (by MACs) whose latency on the target meets the goal.

    Predictions are corrected by what is measured, where the device is present. Raises `UsageError` with the closest
    reachable latency when no candidate meets the goal.
    """

    name: ClassVar[str] = "search.uniform"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)
    before: ClassVar[tuple[str, ...]] = ("distill", "fold_batchnorm", "quantize")
    Config: ClassVar[type[PassConfig]] = UniformConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Slice the Program to the chosen candidate."""
        space = space_of(program)
        verify_rules(space)
        ruler = _Ruler(program, ctx)
        wanted = self._goal(ruler, ctx) * self.config.margin
        options = self._options(program, space, ctx)
        if ctx.budget.size is not None:
            options = [o for o in options if ruler.smallest_size(o.bytes) <= ctx.budget.size]
        for _ in range(self.config.rounds):
            # Measurements move what is reachable, so a wish of our own moves along.
            goal = wanted if self._limited(ctx) else self._reachable(wanted, options, ruler)
            chosen, latency = self._best(options, ruler, goal)
            student = slice_program(program, chosen.candidate.subnet)
            if not ruler.correct(student, chosen.kernels):
                break
        found = chosen.candidate
        metrics = {
            "goal_ms": round(goal, 4),
            "latency_ms": round(latency, 4),
            "precision": ruler.fastest(chosen.kernels)[1],
            "candidates": len(options),
            "depth": round(found.depth, 4),
            "width": found.width,
            "parameters": chosen.parameters,
            "macs": chosen.macs,
            "subnet": found.subnet.to_dict(),
        }
        return PassResult(student, student is not program, metrics)

    def _goal(self, ruler: "_Ruler", ctx: PassContext) -> float:
        if self.config.latency is not None:
            return milliseconds(self.config.latency)
        if ctx.budget.latency is not None:
            return ctx.budget.latency
        share = ctx.budget.latency_share if ctx.budget.latency_share is not None else 1 / float(self.config.speedup)
        return ruler.teacher * share

    def _limited(self, ctx: PassContext) -> bool:
        """Whether somebody asked for the latency; a wish of our own must not fail the build."""
        asked = (self.config.latency, ctx.budget.latency, ctx.budget.latency_share)
        return any(limit is not None for limit in asked)

    def _reachable(self, goal: float, options: Sequence[_Option], ruler: "_Ruler") -> float:
        """The goal, or the same share of what can be gained at all where small kernels rule it out."""
        least = min((ruler.fastest(o.kernels)[0] for o in options), default=0.0)
        return goal if least <= goal else least + max(ruler.teacher - least, 0.0) / float(self.config.speedup)

    def _options(self, program: Program, space: SearchSpace, ctx: PassContext) -> list[_Option]:
        damage = {}
        if self.config.depth and space.blocks:
            samples = min(self.config.samples, len(ctx.data.train))
            damage = block_damage(program, space, ctx.data.calibration(samples, ctx.seed).inputs)
        groups = [g for g in space.groups if self.config.hidden or g.kind != "hidden"]
        magnitude = {g.name: unit_magnitude(program, space, g) for g in groups}
        steps = round((1 - self.config.smallest) * 16) if self.config.width and groups else 0
        widths = [1 - i / 16 for i in range(steps + 1)]
        ladder = candidates(space, damage, magnitude, widths=widths, depth=bool(damage), multiple=self.config.multiple)
        options = []
        for candidate in {c.subnet: c for c in reversed(list(ladder))}.values():
            cost = space.cost(candidate.subnet)
            kernels = space.kernels(candidate.subnet)
            options.append(_Option(candidate, kernels, cost.parameters, cost.macs, cost.bytes))
            ctx.progress.update(len(options), 0, "candidates")
        return sorted(options, key=lambda o: (-o.macs, -o.parameters))

    def _best(self, options: Sequence[_Option], ruler: "_Ruler", goal: float) -> tuple[_Option, float]:
        latencies = [ruler.fastest(o.kernels)[0] for o in options]
        for option, latency in zip(options, latencies, strict=True):
            if latency <= goal:
                return option, latency
        closest = f"{min(latencies):.3f} ms" if latencies else "none fits the size budget"
        raise UsageError(
            f"no uniform student reaches {goal:.3f} ms (margin included) on this target; the closest: {closest}",
            "raise --latency or --size, or search with other means (see `compactor passes`)",
        )


class _Ruler:
    """Latency of candidates in the target's fastest precision, corrected by measurements where there are any."""

    def __init__(self, program: Program, ctx: PassContext) -> None:
        self._ctx = ctx
        self._factor = dict.fromkeys(ctx.target.precisions, 1.0)
        self._present = ctx.target.present and ctx.backend.installed()
        self.teacher = ctx.latency(program).p50
        if self._present:
            for precision in list(self._factor):
                self.correct_at(program, program.kernels(), precision)

    def fastest(self, kernels: Sequence[Kernel]) -> tuple[float, str]:
        """Lowest corrected prediction, and its precision."""
        predict = self._ctx.target.predict
        return min((factor * predict(kernels, p).p50, p) for p, factor in self._factor.items())

    def correct(self, student: Program, kernels: Sequence[Kernel]) -> bool:
        """Measure a candidate; True when the correction changed enough to choose again."""
        if not self._present:
            return False
        expected, precision = self.fastest(kernels)
        self.correct_at(student, kernels, precision)
        now, _ = self.fastest(kernels)
        return abs(now - expected) > 0.03 * expected

    def correct_at(self, program: Program, kernels: Sequence[Kernel], precision: str) -> None:
        """Make the prediction at one precision agree with the measurement of this Program."""
        measured = self._ctx.latency(self._realised(program, precision)).p50
        self._factor[precision] = measured / self._ctx.target.predict(kernels, precision).p50

    def _realised(self, program: Program, precision: str) -> Program:
        steps: list[tuple[str, dict[str, Any]]] = [("fold_batchnorm", {})]
        if precision == "int8":
            steps.append(("quantize.ptq", {"samples": min(32, len(self._ctx.data.train))}))
        elif precision != "float32":
            steps.append(("quantize.cast", {"dtype": precision}))
        return self._ctx.apply(program, steps)

    def smallest_size(self, size: int) -> float:
        """Bytes in the smallest precision of the target; int8 weights keep their scales, about 2 %."""
        shares = {"float32": 1.0, "float16": 0.5, "bfloat16": 0.5, "int8": 0.27}
        return size * min(shares[p] for p in self._factor)
