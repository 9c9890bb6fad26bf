"""What every search aims for and how it settles: the preferred candidate whose latency on the target meets the goal."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import Field

from compactor.budget import milliseconds
from compactor.errors import UsageError
from compactor.ir.cost import Cost
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace
from compactor.ir.subnet import Subnet
from compactor.passes.search.ruler import Ruler
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig


class GoalConfig(PassConfig):
    """Options of every search that meets a latency.

    Without a latency budget the goal is the latency of the Program that the pass is given, over ``speedup``.
    """

    latency: str | None = Field(None, description="latency to meet, like 2ms; the build's budget when absent")
    speedup: float = Field(4.0, gt=1, description="without a latency budget: the latency before the pass over this")
    margin: float = Field(0.9, gt=0, le=1, description="share of the latency that the student may use")
    rounds: int = Field(4, ge=1, description="measurements with which predictions are corrected")


class RangeConfig(GoalConfig):
    """Options of searches that rank units and blocks by importance."""

    hidden: bool = Field(False, description="let the residual axis of transformers shrink too")
    smallest: float = Field(0.125, gt=0, le=1, description="smallest width")
    multiple: int = Field(8, ge=1, description="widths are multiples of this where an axis is long enough")


@dataclass(frozen=True)
class Option:
    """A candidate; what it costs is counted when asked."""

    space: SearchSpace
    subnet: Subnet

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """What the device would run."""
        return self.space.kernels(self.subnet)

    @cached_property
    def cost(self) -> Cost:
        """Parameters, MACs and bytes."""
        return self.space.cost(self.subnet)


@dataclass(frozen=True)
class Choice:
    """The student, what it was, its latency and the goal, milliseconds."""

    student: Program
    option: Option
    latency: float
    precision: str
    goal: float

    def metrics(self) -> dict[str, Any]:
        """For the pass's record."""
        cost = self.option.cost
        return {
            "goal_ms": round(self.goal, 4),
            "latency_ms": round(self.latency, 4),
            "precision": self.precision,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "subnet": self.option.subnet.to_dict(),
        }


class Goal:
    """The latency (and size) that a search has to meet on its target; ``ruler`` tells that of candidates."""

    def __init__(self, program: Program, config: GoalConfig, ctx: PassContext) -> None:
        self._program, self._config, self._ctx = program, config, ctx
        self.ruler = Ruler(program, ctx)
        self._wanted = self._asked() * config.margin

    def _asked(self) -> float:
        config, budget = self._config, self._ctx.budget
        if config.latency is not None:
            return milliseconds(config.latency)
        if budget.latency is not None:
            return budget.latency
        if budget.latency_share is not None:
            return self._ctx.latency(self._ctx.teacher).p50 * budget.latency_share
        return self.ruler.whole / config.speedup

    def milliseconds(self, options: Sequence[Option]) -> float:
        """The goal. A wish of our own becomes the same share of what can be gained at all where small kernels rule it
        out; what somebody asked for stays. It moves when measurements correct the ruler."""
        asked = (self._config.latency, self._ctx.budget.latency, self._ctx.budget.latency_share)
        least = min((self.ruler.fastest(o.kernels)[0] for o in options), default=0.0)
        if least <= self._wanted or any(limit is not None for limit in asked):
            return self._wanted
        return least + max(self.ruler.whole - least, 0.0) / self._config.speedup

    def fits_size(self, option: Option) -> bool:
        """Whether a candidate meets the size budget in the target's smallest precision."""
        limit = self._ctx.budget.size
        return limit is None or self.ruler.smallest_size(option.cost.bytes) <= limit

    def settle(self, options: Sequence[Option], among: Sequence[Option] | None = None) -> Choice:
        """The first option, in order of preference, that meets the goal; measured where the device is present.

        ``among`` tells what can be reached at all, when nobody asked for a latency; default: the options.
        Raises `UsageError` with the closest reachable latency when none does.
        """
        options = [o for o in options if self.fits_size(o)]
        tried: list[Option] = []
        for _ in range(self._config.rounds):
            goal = self.milliseconds(options if among is None else among)
            chosen, latency, precision = self._first(options, goal)
            tried.append(chosen)
            student = slice_program(self._program, chosen.subnet)
            if not self.ruler.correct(student, chosen.kernels):
                return Choice(student, chosen, latency, precision, goal)
        return self._met(tried, options, options if among is None else among)

    def _met(self, tried: Sequence[Option], options: Sequence[Option], among: Sequence[Option]) -> Choice:
        """When the rounds are over before measurements agree: the first option that was measured to meet the goal."""
        goal, timed = self.milliseconds(among), {id(o): self.ruler.fastest(o.kernels) for o in tried}
        chosen = next((o for o in options if id(o) in timed and timed[id(o)][0] <= goal), None)
        chosen = chosen or min(tried, key=lambda o: timed[id(o)][0])
        return Choice(slice_program(self._program, chosen.subnet), chosen, *timed[id(chosen)], goal)

    def _first(self, options: Sequence[Option], goal: float) -> tuple[Option, float, str]:
        latencies = [self.ruler.fastest(o.kernels) for o in options]
        for option, (latency, precision) in zip(options, latencies, strict=True):
            if latency <= goal:
                return option, latency, precision
        closest = f"{min(latencies)[0]:.3f} ms" if latencies else "none fits the size budget"
        raise UsageError(
            f"no student reaches {goal:.3f} ms (margin included) on this target; the closest: {closest}",
            "raise --latency or --size, or search with other means (see `compactor passes`)",
        )
