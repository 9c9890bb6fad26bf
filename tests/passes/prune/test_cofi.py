"""`prune.cofi` on small real models: constraints are met, runs resume, errors help."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from compactor.budget import Budget
from compactor.errors import InputError, UsageError
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.ir.subnet import Subnet
from compactor.passes.prune.cofi import CofiConfig, CofiPruning
from compactor.passes.prune.constraint import Aim, Constraint
from compactor.passes.search.goal import Goal
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassResult
from compactor.training import DivergedError
from tests.passes.prune.support import FAMILIES, around, fastest, latency, teacher
from tests.passes.support import error

SHORT = {"speedup": 2.0, "margin": 1.0, "multiple": 1, "prune_epochs": 8, "epochs": 2, "batch": 4, "views": 1}


def prune(model: Program, ctx: PassContext, **options: object) -> PassResult:
    """A short run."""
    if ctx.budget.latency is None:
        options = {"latency": latency(model, ctx), **options}
    return CofiPruning(CofiConfig.model_validate({**SHORT, **options})).run(model, ctx)


@pytest.mark.parametrize("name", FAMILIES)
def test_latency_is_met(name: str, tmp_path: Path) -> None:
    model = teacher(name)
    ctx = around(model, tmp_path)
    result = prune(model, ctx)
    found = result.metrics
    assert result.modified and found["asked"] == pytest.approx(found["whole"] / 2)
    assert 0.97 * found["asked"] <= found["achieved"] <= found["asked"]
    predicted = fastest(result.program, ctx)
    assert predicted == pytest.approx(found["achieved"], rel=1e-6)
    shapes = slice_program(model, Subnet.from_dict(found["subnet"])).state
    assert {k: v.shape for k, v in result.program.state.items()} == {k: v.shape for k, v in shapes.items()}


@pytest.mark.parametrize("kind", ["size", "macs"])
def test_size_and_macs_are_met(kind: str, tmp_path: Path) -> None:
    model = teacher("mobilenet_v2")
    found = prune(model, around(model, tmp_path), constraint=kind, speedup=3.0)
    cost = found.program.cost()
    achieved = {"size": cost.bytes, "macs": cost.macs}[kind]
    whole = {"size": model.cost().bytes, "macs": model.cost().macs}[kind]
    assert 0.97 / 3 <= achieved / whole <= 1 / 3 + 1e-9


def test_the_expected_cost_follows_the_target(tmp_path: Path) -> None:
    """With time enough, gates alone come near the constraint."""
    model = teacher("resnet_b")
    found = prune(model, around(model, tmp_path), prune_epochs=60, gate_lr=0.1).metrics
    assert found["expected"] == pytest.approx(found["asked"], rel=0.1)
    assert found["pruning"]["steps"] == 180


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    model = teacher("mobilenet_v2")
    first, again = (prune(model, around(model, tmp_path / name)) for name in "ab")
    assert first.program.fingerprint == again.program.fingerprint and first.metrics == again.metrics
    other = prune(model, around(model, tmp_path / "c", seed=1))
    assert other.program.fingerprint != first.program.fingerprint


class Stop:
    """Interrupts at the nth step of all trainings."""

    def __init__(self, at: int) -> None:
        self.left = at

    def update(self, done: int, total: int, text: str = "") -> None:
        self.left -= "epoch" in text
        if self.left == 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None: ...


@pytest.mark.parametrize("step", [1, 11, 23, 28])
def test_resumed_equals_undisturbed(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while pruning (24 steps) and while fine-tuning, a checkpoint after every step."""
    clock = iter(range(0, 10**9, 60))
    monkeypatch.setattr("compactor.training.engine.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    model = teacher("mobilenet_v2")
    whole = prune(model, around(model, tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        prune(model, around(model, tmp_path / "b", progress=Stop(step)))
    resumed = prune(model, around(model, tmp_path / "b"))
    assert resumed.program.fingerprint == whole.program.fingerprint and resumed.metrics == whole.metrics


def test_the_given_program_stays_as_it_was(tmp_path: Path) -> None:
    model = teacher("vit")
    before = {k: v.clone() for k, v in model.state.items()}
    prune(model, around(model, tmp_path))
    assert all(torch.equal(before[k], v) for k, v in model.state.items())


def test_depth_and_hidden_can_be_kept(tmp_path: Path) -> None:
    model = teacher("bert")
    space = space_of(model)
    ctx = around(model, tmp_path)
    kept = prune(model, ctx, depth=False, hidden=False, latency=latency(model, ctx, 0.75)).metrics["subnet"]
    assert not kept["dropped"]
    assert not set(kept["kept"]) & {g.name for g in space.groups if g.kind == "hidden"}


def test_blocks_alone(tmp_path: Path) -> None:
    model = teacher("resnet_b")
    ctx = around(model, tmp_path)
    found = prune(model, ctx, width=False, latency=latency(model, ctx, 0.8)).metrics
    assert found["subnet"]["dropped"] and not found["subnet"]["kept"]
    assert found["achieved"] <= found["asked"]


@pytest.mark.parametrize("kind", ["latency", "macs"])
def test_two_passes_share_the_way(kind: str, tmp_path: Path) -> None:
    model = teacher("mobilenet_v2")
    ctx = around(model, tmp_path)
    options = {"constraint": kind, "speedup": 4.0, "prune_epochs": 1, "epochs": 1}
    first = prune(model, ctx, way=0.5, latency=latency(model, ctx, 0.25), **options)
    asked, whole = first.metrics["asked"], first.metrics["whole"]
    assert asked == pytest.approx(whole / 2) and 0.9 * asked <= first.metrics["achieved"] <= asked
    second = prune(first.program, ctx, latency=latency(model, ctx, 0.25), **{**options, "speedup": 2.0})
    assert 0.9 * whole / 4 <= second.metrics["achieved"] <= whole / 4


@pytest.mark.parametrize(
    ("cost", "share", "narrows"),
    [
        (lambda kernels: sum(k.macs for k in kernels), 0.8, True),
        (lambda kernels: len(kernels), 0.99, True),  # half of that is more than blocks alone can save
        (lambda kernels: len(kernels) ** 4, 0.9, False),
    ],
)
def test_units_go_where_narrower_kernels_save_time(cost: Any, share: float, narrows: bool) -> None:
    space = space_of(teacher("resnet_b"))

    def milliseconds(subnet: Subnet) -> float:
        return float(cost(space.kernels(subnet)))

    whole = milliseconds(space.full())
    constraint = Constraint("latency", "ms", whole, share * whole, milliseconds, lambda *gates: torch.zeros(()))
    groups, blocks = list(space.groups), [b.name for b in space.blocks]
    aim = Aim(space, constraint, cast(Goal, None))
    assert aim.narrowing(groups, blocks) == (groups if narrows else [])


def test_a_constraint_that_is_met_changes_nothing(tmp_path: Path) -> None:
    model = teacher("vit")
    result = prune(model, around(model, tmp_path, budget=Budget(latency="1s")))
    assert result.program is model and not result.modified and "meets" in result.metrics["skipped"]


@pytest.mark.parametrize("options", [{"latency": "0.1us"}, {"constraint": "macs", "speedup": 1e4}])
def test_a_constraint_that_cannot_be_met_is_refused(options: dict[str, object], tmp_path: Path) -> None:
    model = teacher("resnet_b")
    with pytest.raises(UsageError, match=r"cannot be reached: with all (.|\n)* are left \(of .*pinned(.|\n)*inspect"):
        prune(model, around(model, tmp_path), **options)


def test_the_size_budget_holds_beside_the_latency(tmp_path: Path) -> None:
    model = teacher("resnet_b")
    ctx = around(model, tmp_path)
    goal = Goal(model, CofiConfig(), ctx)
    least = goal.ruler.smallest_size(model.cost().bytes)
    ctx = replace(ctx, budget=Budget(size=int(least * 0.3)))
    found = prune(model, ctx, latency=latency(model, ctx, 0.9), prune_epochs=2).program
    assert 0.25 * least <= goal.ruler.smallest_size(found.cost().bytes) <= 0.3 * least
    with pytest.raises(UsageError, match="no student fits the size budget"):
        prune(model, replace(ctx, budget=Budget(size=10)), latency=latency(model, ctx, 0.9))


def test_less_data_than_a_batch_is_refused(tmp_path: Path) -> None:
    model = teacher("resnet_b")
    with pytest.raises(InputError, match="12 training samples are fewer than one batch of 16"):
        prune(model, around(model, tmp_path), batch=16)


def test_a_diverging_loss_says_where(tmp_path: Path) -> None:
    model = teacher("vit")
    with pytest.raises(DivergedError, match=r"step \d+ of \d+.*learning rate"):
        prune(model, around(model, tmp_path), prune_lr=1e30)


def test_a_student_that_is_pruned_again(tmp_path: Path) -> None:
    """The teacher is another Program than the one that is pruned; warm-up trains it first."""
    model = teacher("resnet_b")
    student = slice_program(model, space_of(model).sample(0, keep=0.75, depth=1.0))
    ctx = around(model, tmp_path)
    found = prune(student, ctx, warmup=1)
    assert found.metrics["achieved"] <= found.metrics["asked"]
    assert error(model, found.program) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_hidden_states_may_be_followed(name: str, tmp_path: Path) -> None:
    model = teacher(name)
    found = [prune(model, around(model, tmp_path / x), layerwise=0.9, prune_epochs=2) for x in "ab"]
    metrics = found[0].metrics
    assert metrics["pruning"]["layerwise"] == 0.9 and metrics["finetuning"]["matches"]
    assert 0.97 * metrics["asked"] <= metrics["achieved"] <= metrics["asked"]
    assert found[0].program.fingerprint == found[1].program.fingerprint and metrics == found[1].metrics


def test_hidden_states_are_followed_in_effort_max(tmp_path: Path) -> None:
    model = teacher("vit")
    short = {"prune_epochs": 1, "epochs": 1}
    weights = [
        prune(model, around(model, tmp_path / effort, effort=effort), **short).metrics["pruning"]["layerwise"]
        for effort in ("balanced", "max")
    ]
    assert weights == [0.0, 0.9]


def test_gates_close_under_hidden_states_too(tmp_path: Path) -> None:
    model = teacher("resnet_b")
    found = prune(model, around(model, tmp_path), prune_epochs=60, gate_lr=0.1, layerwise=0.5).metrics
    assert found["expected"] == pytest.approx(found["asked"], rel=0.1)
