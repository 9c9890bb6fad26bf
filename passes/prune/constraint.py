"""What pruning has to meet: latency on the target, size or MACs, of subnets and in expectation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from compactor.errors import UsageError
from compactor.ir.expected import Expectation
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import AxisGroup, SearchSpace
from compactor.ir.subnet import Subnet
from compactor.passes.prune.choosing import Chooser
from compactor.passes.search.goal import Goal, Option, RangeConfig
from compactor.pipeline.context import PassContext

Kind = Literal["latency", "size", "macs"]
Gates = Mapping[str, Tensor]

_PAYING = 0.5
"""Of the logarithm of the arithmetic that narrower kernels save, the share that latency has to follow. On a CPU it
follows with 0.2 to 0.4 for ResNet-56 and 0.8 to 0.9 for MiniLM."""

_ROOM = 0.7
"""Share of the limit that blocks alone have to reach, so that there is a choice between them."""


class ConstraintConfig(RangeConfig):
    """Options of every pruning pass: what to meet, and how far groups may shrink."""

    constraint: Kind = Field("latency", description="what to meet: latency, size (the size budget) or macs")
    hidden: bool = Field(True, description="let the residual axis of transformers shrink too")
    width: bool | None = Field(True, description="remove units of axis groups")
    depth: bool = Field(True, description="remove blocks")
    way: float = Field(
        1.0, gt=0, le=1, description="how far to go now, as a share of the logarithm; another pass goes the rest"
    )


@dataclass(frozen=True)
class Constraint:
    """A cost and its limit. ``whole``: the cost of the whole Program.

    ``cost`` is that of a subnet as the device would run it; ``expected`` maps probabilities of being kept, per unit and
    block, to a float64 scalar with gradients, equal to ``cost`` at 0 and 1 (see `Target.expected`).
    """

    kind: Kind
    unit: str
    whole: float
    limit: float
    cost: Callable[[Subnet], float]
    expected: Callable[[Gates, Gates], Tensor]

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


@dataclass(frozen=True)
class Aim:
    """A constraint and the size budget, both to be met by a subnet of ``space``."""

    space: SearchSpace
    constraint: Constraint
    goal: Goal

    @property
    def met(self) -> bool:
        """Whether the whole Program meets them."""
        constraint = self.constraint
        return constraint.whole <= constraint.limit and self._fits(self.space.full())

    def check(self, least: Subnet) -> None:
        """Raise `UsageError` when even the smallest subnet misses the limit, or the size budget."""
        if not self._fits(least):
            raise UsageError(
                "no student fits the size budget, even with all removed that may be", "raise --size, or set hidden=true"
            )
        asked = self.constraint
        reachable = asked.cost(least)
        if reachable > asked.limit:
            raise UsageError(
                f"{asked.kind} {asked.limit:.4g} {asked.unit} cannot be reached: with all that may be removed gone, "
                f"{reachable:.4g} {asked.unit} are left (of {asked.whole:.4g}); the rest is pinned or below `smallest`",
                "ask for more, set a smaller `smallest` or `multiple`, or see `compactor inspect` for what is pinned",
            )

    def narrowing(self, groups: list[AxisGroup], blocks: Sequence[str]) -> list[AxisGroup]:
        """The groups to prune: all, or none where narrower kernels hardly save time and blocks alone will do.

        They will do where some stay: without any of ``blocks``, those that may go, a good deal of the limit is left.
        """
        constraint, full = self.constraint, self.space.full()
        if constraint.kind != "latency" or constraint.cost(self.space.choose({}, blocks)) > _ROOM * constraint.limit:
            return groups
        narrow = self.space.choose({g.name: range(max(1, g.size // 2)) for g in groups}, [])
        macs, time = (cost(narrow) / cost(full) for cost in (lambda s: self.space.cost(s).macs, constraint.cost))
        return groups if time < macs**_PAYING else []

    def sliced(self, program: Program, chooser: Chooser, rounds: int) -> tuple[Program, Subnet]:
        """The student of the chooser's largest subnet that meets both; chosen again where a measurement corrects.

        When the rounds are over before measurements agree, the largest that was measured to meet them.
        """
        tried: list[tuple[Program, Subnet]] = []
        for _ in range(rounds):
            subnet = chooser.largest(self._cost, self.constraint.limit)
            tried.append((slice_program(program, subnet), subnet))
            if self.constraint.kind != "latency" or not self.goal.ruler.correct(
                tried[-1][0], self.space.kernels(subnet)
            ):
                return tried[-1]
        fitting = [t for t in tried if self._cost(t[1]) <= self.constraint.limit]
        return max(fitting, key=lambda t: self._cost(t[1])) if fitting else min(tried, key=lambda t: self._cost(t[1]))

    def skipped(self) -> dict[str, object]:
        """Why nothing was done, for the pass's record."""
        return {"skipped": "the Program meets the constraint", **self.constraint.metrics(self.space.full())}

    def metrics(self, subnet: Subnet) -> dict[str, object]:
        """Asked and achieved, what was kept and what it costs, for the pass's record."""
        latency, precision = self.goal.ruler.fastest(self.space.kernels(subnet))
        cost = self.space.cost(subnet)
        return {
            **self.constraint.metrics(subnet),
            "latency_ms": round(latency, 4),
            "precision": precision,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "subnet": subnet.to_dict(),
        }

    def _fits(self, subnet: Subnet) -> bool:
        return self.goal.fits_size(Option(self.space, subnet))

    def _cost(self, subnet: Subnet) -> float:
        return self.constraint.cost(subnet) if self._fits(subnet) else math.inf


def aim_of(program: Program, space: SearchSpace, config: ConstraintConfig, ctx: PassContext, least: Subnet) -> Aim:
    """What the options and the budget ask for; ``least`` is the smallest subnet that pruning may end in."""
    goal = Goal(program, config, ctx)
    constraint = _constraint(space, config, ctx, goal, least)
    limit = constraint.whole ** (1 - config.way) * constraint.limit**config.way
    return Aim(space, replace(constraint, limit=limit), goal)


def _constraint(
    space: SearchSpace, config: ConstraintConfig, ctx: PassContext, goal: Goal, least: Subnet
) -> Constraint:
    expectation, ruler = Expectation(space), goal.ruler
    if config.constraint == "latency":

        def milliseconds(subnet: Subnet) -> float:
            return ruler.fastest(space.kernels(subnet))[0]

        whole, precision = ruler.fastest(space.kernels(space.full()))
        factor = whole / float(ctx.target.expected(expectation.kernels({}, {}), precision))
        limit = goal.milliseconds([Option(space, least)])
        return Constraint(
            "latency", "ms", whole, limit, milliseconds,
            lambda units, blocks: factor * ctx.target.expected(expectation.kernels(units, blocks), precision),
        )  # fmt: skip
    if config.constraint == "size":
        size = float(space.cost(space.full()).bytes)
        share = ruler.smallest_size(1 << 20) / (1 << 20)
        return Constraint(
            "size", "bytes", size * share, ctx.budget.size or size * share / config.speedup,
            lambda subnet: ruler.smallest_size(space.cost(subnet).bytes),
            lambda units, blocks: share * expectation.bytes(units, blocks),
        )  # fmt: skip
    macs = float(sum(k.macs for k in space.kernels(space.full())))

    def expected_macs(units: Gates, blocks: Gates) -> Tensor:
        kernels = expectation.kernels(units, blocks)
        return (kernels.keep * kernels.macs).sum()

    return Constraint(
        "macs", "MACs", macs, macs / config.speedup,
        lambda subnet: float(sum(k.macs for k in space.kernels(subnet))), expected_macs,
    )  # fmt: skip


def prunable(space: SearchSpace, config: ConstraintConfig) -> list[AxisGroup]:
    """The groups that may shrink."""
    return [g for g in space.groups if config.width is not False and (config.hidden or g.kind != "hidden")]
