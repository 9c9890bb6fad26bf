"""What pruning has to meet: latency on the target, size or MACs, of subnets and in expectation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from torch import Tensor

from compactor.errors import UsageError
from compactor.ir.expected import Expectation
from compactor.ir.program import Program
from compactor.ir.space import AxisGroup, SearchSpace
from compactor.ir.subnet import Subnet
from compactor.passes.search.goal import Goal, Option, RangeConfig
from compactor.pipeline.context import PassContext

Kind = Literal["latency", "size", "macs"]
Gates = Mapping[str, Tensor]


class ConstraintConfig(RangeConfig):
    """Options of every pruning pass: what to meet, and how far groups may shrink."""

    constraint: Kind = Field("latency", description="what to meet: latency, size (the size budget) or macs")
    hidden: bool = Field(True, description="let the residual axis of transformers shrink too")
    depth: bool = Field(True, description="remove blocks")


@dataclass(frozen=True)
class Constraint:
    """A cost and its limit. ``whole``: the cost of the whole Program.

    ``cost`` is that of a subnet as the device would run it; ``expected`` maps probabilities of being kept, per unit and
    block, to a float64 scalar with gradients, equal to ``cost`` at 0 and 1 but for padding (see `Target.expected`).
    """

    kind: Kind
    unit: str
    whole: float
    limit: float
    cost: Callable[[Subnet], float]
    expected: Callable[[Gates, Gates], Tensor]

    @property
    def loose(self) -> bool:
        """Whether the whole Program meets it."""
        return self.whole <= self.limit

    def check(self, least: Subnet, fits_size: bool) -> None:
        """Raise `UsageError` when even the smallest subnet misses the limit, or the size budget."""
        if not fits_size:
            raise UsageError(
                "no student fits the size budget, even with all removed that may be", "raise --size, or set hidden=true"
            )
        reachable = self.cost(least)
        if reachable > self.limit:
            raise UsageError(
                f"{self.kind} {self.limit:.4g} {self.unit} cannot be reached: with all that may be removed gone, "
                f"{reachable:.4g} {self.unit} are left (of {self.whole:.4g}); the rest is pinned or below `smallest`",
                "ask for more, set a smaller `smallest` or `multiple`, or see `compactor inspect` for what is pinned",
            )

    def skipped(self, whole: Subnet) -> dict[str, object]:
        """Why nothing was done, for the record."""
        return {"skipped": "the Program meets the constraint", **self.metrics(whole)}

    def metrics(self, subnet: Subnet) -> dict[str, object]:
        """Asked and achieved, for the pass's record."""
        achieved = self.cost(subnet)
        return {
            "constraint": self.kind,
            "unit": self.unit,
            "whole": self.whole,
            "asked": self.limit,
            "achieved": achieved,
            "off_percent": round(100 * (achieved / self.limit - 1), 3),
        }


def constraint_of(
    program: Program, space: SearchSpace, config: ConstraintConfig, ctx: PassContext, least: Subnet
) -> tuple[Constraint, Goal]:
    """The constraint that the options and the budget ask for, and the goal it comes from."""
    goal, expectation = Goal(program, config, ctx), Expectation(space)
    ruler = goal.ruler
    if config.constraint == "latency":

        def milliseconds(subnet: Subnet) -> float:
            return ruler.fastest(space.kernels(subnet))[0]

        whole, precision = ruler.fastest(space.kernels(space.full()))
        factor = whole / float(ctx.target.expected(expectation.kernels({}, {}), precision))
        limit = goal.milliseconds([Option(space, least)])
        return Constraint(
            "latency", "ms", whole, limit, milliseconds,
            lambda units, blocks: factor * ctx.target.expected(expectation.kernels(units, blocks), precision),
        ), goal  # fmt: skip
    if config.constraint == "size":
        size = float(space.cost(space.full()).bytes)
        share = ruler.smallest_size(1 << 20) / (1 << 20)
        return Constraint(
            "size", "bytes", size * share, ctx.budget.size or size * share / config.speedup,
            lambda subnet: ruler.smallest_size(space.cost(subnet).bytes),
            lambda units, blocks: share * expectation.bytes(units, blocks),
        ), goal  # fmt: skip
    macs = float(sum(k.macs for k in space.kernels(space.full())))

    def expected_macs(units: Gates, blocks: Gates) -> Tensor:
        kernels = expectation.kernels(units, blocks)
        return (kernels.keep * kernels.macs).sum()

    return Constraint(
        "macs", "MACs", macs, macs / config.speedup,
        lambda subnet: float(sum(k.macs for k in space.kernels(subnet))), expected_macs,
    ), goal  # fmt: skip


def within(constraint: Constraint, goal: Goal, space: SearchSpace) -> Callable[[Subnet], float]:
    """The constraint's cost, infinite beyond the size budget."""
    return lambda subnet: constraint.cost(subnet) if goal.fits_size(Option(space, subnet)) else math.inf


def prunable(space: SearchSpace, config: ConstraintConfig) -> list[AxisGroup]:
    """The groups that may shrink."""
    return [g for g in space.groups if config.hidden or g.kind != "hidden"]


def student_metrics(goal: Goal, space: SearchSpace, subnet: Subnet) -> dict[str, object]:
    """What was kept and what it costs, for the pass's record."""
    latency, precision = goal.ruler.fastest(space.kernels(subnet))
    cost = space.cost(subnet)
    return {
        "latency_ms": round(latency, 4),
        "precision": precision,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "subnet": subnet.to_dict(),
    }
