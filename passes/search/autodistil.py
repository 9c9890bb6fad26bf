"""`search.autodistil`: a weight-shared super-network of one compact sub-space, and the best of its subnets."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from compactor import scoring
from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.reorder import reorder
from compactor.ir.space import SearchSpace, space_of
from compactor.ir.subnet import Subnet
from compactor.passes.distill import recipe as recipes
from compactor.passes.search.bands import BANDS, subnets
from compactor.passes.search.goal import Goal, GoalConfig, Option
from compactor.passes.search.importance import unit_magnitude
from compactor.passes.search.ranking import HeldOut
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.training import TrainConfig, effort, fit
from compactor.training.cache import Teacher
from compactor.training.sandwich import Sandwich, Terms
from compactor.training.schedule import generator
from compactor.training.supernet import Supernet
from compactor.training.taps import ATTENTION, FEATURES, tapped
from compactor.training.views import Views

_ENOUGH = 1 / 8
"""Share of a sub-space that must meet the goal: fewer leave nothing to search."""

_CALIBRATION = 256
"""Samples for the batch norm statistics of a subnet."""

_RATES = {"adamw": 5e-4, "sgd": 0.05}


class AutoDistilConfig(GoalConfig):
    """Options of `search.autodistil`; what is not given is chosen by kind of model, data and effort."""

    space: Literal["auto", "tiny", "small", "base"] = Field("auto", description="sub-space; auto: by the budget")
    epochs: int | None = Field(None, ge=1, description="passes over the training split")
    lr: float | None = Field(None, gt=0, description="highest learning rate")
    batch: int | None = Field(None, ge=1, description="samples per step")
    accumulate: int = Field(1, ge=1, description="micro-batches per step")
    random: int = Field(2, ge=0, description="subnets per step beside the largest and the smallest")
    logits: float = Field(1.0, ge=0, description="weight of the teacher's soft targets")
    relation: float = Field(1.0, ge=0, description="weight of the relations in the last layer")
    temperature: float = Field(4.0, gt=0, description="softens teacher and students")
    heads: int = Field(12, ge=1, description="most relation heads")
    softmax: bool = Field(True, description="compare relations after a softmax")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights, 0 for none")
    samples: int = Field(1024, ge=1, description="held-out samples on which subnets are ranked")
    candidates: int = Field(256, ge=1, description="most subnets that are ranked")
    multiple: int = Field(8, ge=1, description="widths are multiples of this where an axis is long enough")
    seconds: float = Field(0.0, ge=0, description="safety limit of training time, 0 for none")


class AutoDistilSearch(Pass):
    """AutoDistil (arXiv 2201.12507): few-shot search by distillation into weight-shared super-networks.

    The budget chooses one of three compact sub-spaces; its super-network starts from the teacher's weights and is
    trained by the sandwich rule; subnets that meet the latency are ranked on held-out data and the best one inherits
    its weights. Ours: the teacher's logits are in the loss, as nothing is fine-tuned before the ranking, and networks
    without attention follow the relations between samples by their last features.
    """

    name: ClassVar[str] = "search.autodistil"
    version: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"trained"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)
    before: ClassVar[tuple[str, ...]] = ("distill", "fold_batchnorm", "quantize")
    Config: ClassVar[type[PassConfig]] = AutoDistilConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Train, rank, slice. Raises `UsageError`, `DivergedError`, `UnsupportedError` for outputs without classes."""
        scoring.logits(program, ctx.data.train.take(torch.arange(1)).inputs)
        space = space_of(program)
        verify_rules(space)
        orders = _orders(program, space)
        goal = Goal(program, self.config, ctx)
        name, options = self._sub_space(space, goal)
        teacher = ctx.apply(ctx.teacher, [("canonicalize", {})])
        net = Supernet(reorder(program, orders), options[0].subnet)
        trained = self._train(net, teacher, [o.subnet for o in options], ctx)
        held_out = self._held_out(teacher, ctx)
        ranked = held_out.rank(net, self._candidates(options, goal, ctx), ctx.progress)
        choice = goal.settle(_by_loss(ranked, options))
        chosen = choice.option.subnet
        student = held_out.student(net, chosen)
        metrics = choice.metrics() | {
            "subnet": _of_input(chosen, orders).to_dict(),
            "space": name,
            "subnets": len(options),
            "ranked": len(ranked),
            "loss": round(held_out.loss(student), 6),
            **trained,
        }
        return PassResult(student, True, metrics)

    def _sub_space(self, space: SearchSpace, goal: Goal) -> tuple[str, list[Option]]:
        """The largest sub-space of which enough meets the goal. Raises `UsageError` when nothing does."""
        wanted = [b for b in BANDS if self.config.space in ("auto", b.name)]
        found = {b.name: [Option(space, s) for s in subnets(space, b, self.config.multiple)] for b in wanted}
        # Measured here, predictions are corrected before anything is trained; nothing in reach ends the pass.
        goal.settle(sorted((o for options in found.values() for o in options), key=lambda o: -o.cost.macs))
        limit = goal.milliseconds([o for options in found.values() for o in options])
        share = {name: sum(_meets(goal, o, limit) for o in options) / len(options) for name, options in found.items()}
        name = next((n for n, part in share.items() if part >= _ENOUGH), max(share, key=lambda n: share[n]))
        return name, found[name]

    def _train(self, net: Supernet, teacher: Program, subnets: Sequence[Subnet], ctx: PassContext) -> dict[str, Any]:
        config, train = self.config, ctx.data.train
        terms = Terms(config.logits, config.relation, config.temperature, config.heads, config.softmax)
        objective = Sandwich(teacher, train, subnets, terms, random=config.random, views=_views(net.program, ctx))
        settings = self._training(net, subnets, ctx)
        result = fit(net, objective, train, settings, ctx.workspace, name="supernet", progress=ctx.progress)
        net.load_state_dict(result.state)
        outputs = tapped(teacher).outputs
        relation = "attention" if ATTENTION[0] in outputs else "features" if FEATURES in outputs else "none"
        metrics = {
            "relation": relation if config.relation else "none",
            "epochs": result.epochs,
            "steps": result.steps,
            "batch": settings.batch,
            "lr": settings.lr,
        }
        return {**metrics, "stopped": result.stopped} if result.stopped else metrics

    def _training(self, net: Supernet, subnets: Sequence[Subnet], ctx: PassContext) -> TrainConfig:
        config, train = self.config, ctx.data.train
        recipe = recipes.recipe_of(net.program)
        return TrainConfig(
            epochs=config.epochs or _epochs(net.program, subnets, config.random, ctx),
            batch=config.batch or recipes.batch_size(recipe, len(train)),
            accumulate=config.accumulate,
            optimizer=recipe.optimizer,
            lr=config.lr or _RATES[recipe.optimizer],
            weight_decay=recipe.weight_decay,
            clip=1.0,
            ema=config.ema,
            seed=ctx.seed,
            seconds=config.seconds,
        )

    def _held_out(self, teacher: Program, ctx: PassContext) -> HeldOut:
        config, data = self.config, ctx.data
        calibration = data.calibration(min(_CALIBRATION, len(data.train)), ctx.seed).inputs
        return HeldOut(
            teacher, data.dev, calibration, samples=config.samples, temperature=config.temperature, seed=ctx.seed
        )

    def _candidates(self, options: Sequence[Option], goal: Goal, ctx: PassContext) -> list[Subnet]:
        limit = goal.milliseconds(options)
        found = [o.subnet for o in options if _meets(goal, o, limit)]
        order = torch.randperm(len(found), generator=generator(ctx.seed, 0xC4D)).tolist()
        return [found[i] for i in sorted(order[: self.config.candidates])]


def _views(program: Program, ctx: PassContext) -> Views | None:
    """Shifted, perhaps mirrored images, as in `distill.logits`."""
    if not recipes.takes_images(program) or ctx.data.synthetic:
        return None
    flip = recipes.mirrored_agrees(Teacher(ctx.teacher), ctx.data.dev)
    shift = min(program.inputs[0].shape[2:]) // 8
    return Views(len(ctx.data.train), shift, flip, ctx.seed) if shift or flip else None


def _orders(program: Program, space: SearchSpace) -> dict[str, list[int]]:
    """The units of every group, those with the largest weights first."""
    magnitude = {g.name: unit_magnitude(program, space, g) for g in space.groups}
    return {name: values.argsort(descending=True, stable=True).tolist() for name, values in magnitude.items()}


def _epochs(program: Program, subnets: Sequence[Subnet], random: int, ctx: PassContext) -> int:
    """Epochs that the effort pays for; a step costs a forward of the teacher and three of each of its subnets."""
    space, train = space_of(program), ctx.data.train
    ends = [space.cost(subnet).macs for subnet in (subnets[0], subnets[-1])]
    shares = (1 + random / 2) * sum(ends) / space.cost(space.full()).macs
    sample = effort.sample_macs(ctx.teacher, train) + 3 * shares * effort.sample_macs(program, train)
    return effort.affordable(ctx.effort, sample * len(train))


def _by_loss(ranked: Sequence[tuple[float, Subnet]], options: Sequence[Option]) -> list[Option]:
    """Options by loss; behind them, for when measurements rule all of these out, the others by size."""
    option = {o.subnet: o for o in options}
    first = [option.pop(subnet) for _, subnet in ranked]
    return [*first, *sorted(option.values(), key=lambda o: -o.cost.macs)]


def _of_input(subnet: Subnet, orders: Mapping[str, Sequence[int]]) -> Subnet:
    """The subnet in units of the Program before it was reordered."""
    return Subnet.of(subnet.space, {g: tuple(orders[g][i] for i in units) for g, units in subnet.kept}, subnet.dropped)


def _meets(goal: Goal, option: Option, limit: float) -> bool:
    return goal.fits_size(option) and goal.ruler.fastest(option.kernels)[0] <= limit
