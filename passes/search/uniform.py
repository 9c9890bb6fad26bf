"""`search.uniform`: uniform depth and width, ranked by importance, at the largest size that meets the budget.

The baseline that every cleverer search has to beat.
"""

from typing import ClassVar

from pydantic import Field

from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.space import SearchSpace, space_of
from compactor.ir.subnet import Subnet
from compactor.passes.search.goal import Goal, Option, RangeConfig
from compactor.passes.search.importance import Importance, rank
from compactor.passes.search.ladder import Candidate, candidates, widths
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult


class UniformConfig(RangeConfig):
    """Options of `search.uniform`."""

    depth: bool = Field(True, description="remove blocks")
    width: bool = Field(True, description="remove units of axis groups")
    samples: int = Field(128, ge=1, description="calibration samples for ranking blocks")


class UniformSearch(Pass):
    """Keep the largest candidate (by MACs) whose latency on the target meets the goal.

    Predictions are corrected by what is measured, where the device is present. Raises `UsageError` with the closest
    reachable latency when no candidate meets the goal.
    """

    name: ClassVar[str] = "search.uniform"
    version: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)
    before: ClassVar[tuple[str, ...]] = ("distill", "fold_batchnorm", "quantize")
    Config: ClassVar[type[PassConfig]] = UniformConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Slice the Program to the chosen candidate."""
        config, space = self.config, space_of(program)
        verify_rules(space)
        goal = Goal(program, config, ctx)
        importance = rank(program, space, ctx, samples=config.samples, hidden=config.hidden, depth=config.depth)
        ladder, options = uniform_options(
            space, importance, ctx, smallest=config.smallest if config.width else 1.0, multiple=config.multiple
        )
        choice = goal.settle(options)
        found = ladder[choice.option.subnet]
        shape = {"depth": round(found.depth, 4), "width": found.width}
        metrics = choice.metrics() | {"candidates": sum(map(goal.fits_size, options)), **shape}
        return PassResult(choice.student, choice.student is not program, metrics)


def uniform_options(
    space: SearchSpace, importance: Importance, ctx: PassContext, *, smallest: float, multiple: int
) -> tuple[dict[Subnet, Candidate], list[Option]]:
    """All uniform candidates: by subnet, and with their costs, the most MACs first."""
    shares = widths(smallest) if importance.orders else [1.0]
    ladder = candidates(space, importance, widths=shares, multiple=multiple)
    unique: dict[Subnet, Candidate] = {c.subnet: c for c in reversed(list(ladder))}
    options = []
    for candidate in unique.values():
        options.append(Option(space, candidate.subnet))
        ctx.progress.update(len(options), 0, "candidates")
    return unique, sorted(options, key=lambda o: (-o.cost.macs, -o.cost.parameters))
