"""`prune.oneshot`: structured pruning without training, to a latency on the target, a size or MACs."""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.space import SearchSpace, space_of
from compactor.passes.prune import scores
from compactor.passes.prune.choosing import Chooser, uniform
from compactor.passes.prune.constraint import Constraint, ConstraintConfig, aim_of, prunable
from compactor.passes.prune.reconstruct import reconstructed
from compactor.passes.search.importance import flat_outputs
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult


class OneshotConfig(ConstraintConfig):
    """Options of `prune.oneshot`."""

    importance: scores.Importance = Field(
        "taylor",
        description="taylor (rise of the distillation loss), activation or magnitude",
        json_schema_extra={"search": ["taylor", "activation", "magnitude"]},
    )
    samples: int = Field(64, ge=1, description="calibration samples for scores and reconstruction")
    reconstruct: bool = Field(True, description="fit the weights that read pruned axes to what they computed before")
    ridge: float = Field(1e-2, gt=0, description="pull of reconstruction towards the old weights")
    rows: int = Field(1 << 15, ge=1, description="most positions that one reconstruction looks at")


class OneshotPruning(Pass):
    """Rank units and blocks, keep the most important that meet the constraint, fit the weights that read them.

    Nothing is trained and no label is needed. Raises `UsageError` for a constraint that cannot be reached,
    `UnsupportedError` with ``importance=taylor`` for outputs that are not class logits.
    """

    name: ClassVar[str] = "prune.oneshot"
    version: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "search")
    before: ClassVar[tuple[str, ...]] = ("distill", "fold_batchnorm", "quantize")
    Config: ClassVar[type[PassConfig]] = OneshotConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Prune."""
        config, space = self.config, space_of(program)
        verify_rules(space)
        groups = prunable(space, config)
        bounds = {"smallest": config.smallest, "multiple": config.multiple}
        least = Chooser(space, groups, *uniform(space, groups, config.depth), **bounds).least
        aim = aim_of(program, space, config, ctx, least)
        if aim.met:
            return PassResult(program, False, aim.skipped())
        aim.check(least)
        inputs = ctx.data.calibration(min(config.samples, len(ctx.data.train)), ctx.seed).inputs
        chooser = Chooser(space, groups, *self._odds(program, space, inputs, aim.constraint, ctx), **bounds)
        student, subnet = aim.sliced(program, chooser, config.rounds)
        metrics: dict[str, Any] = {**aim.metrics(subnet), "importance": config.importance}
        if config.reconstruct:
            fitted = reconstructed(
                program, student, space, subnet, inputs, ridge=config.ridge, rows=config.rows, seed=ctx.seed
            )
            errors = {n: _error(program, s, inputs) for n, s in (("sliced", student), ("reconstructed", fitted))}
            student = fitted if errors["reconstructed"] <= errors["sliced"] else student
            metrics["output_error"] = errors
        return PassResult(student, student is not program, metrics)

    def _odds(
        self, program: Program, space: SearchSpace, inputs: tuple[Tensor, ...], constraint: Constraint, ctx: PassContext
    ) -> scores.Odds:
        config, groups = self.config, prunable(space, self.config)
        blocks = [b.name for b in space.blocks] if config.depth else []
        if config.importance == "taylor":
            return scores.taylor(program, space, groups, blocks, inputs, ctx.teacher, constraint, ctx.seed)
        found = {"magnitude": scores.magnitude, "activation": scores.activation}[config.importance]
        return found(program, space, groups, blocks, inputs)


def _error(program: Program, student: Program, inputs: tuple[Tensor, ...]) -> float:
    """Relative distance of the outputs."""
    found, wanted = (flat_outputs(p, inputs) for p in (student, program))
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
