"""`search.autodistil` on small teachers: what it chooses, what it inherits, resumed and repeated."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from compactor import scoring
from compactor.budget import Budget
from compactor.data import DataSource
from compactor.errors import UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.ir.subnet import Subnet
from compactor.passes.search import autodistil
from compactor.passes.search.autodistil import AutoDistilConfig, AutoDistilSearch
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassResult
from compactor.training import TrainConfig
from tests.models import program
from tests.passes.support import Tensors, traced
from tests.pipeline.support import Device, context
from tests.training.samples import blobs, network, source, trained
from tests.training.samples import program as exported


@pytest.fixture(scope="module")
def teacher() -> Program:
    return exported(trained(network(16), blobs(96, 0)))


def around(teacher: Program, folder: Path, name: str = "stage", **options: Any) -> PassContext:
    (folder / name).mkdir(exist_ok=True)
    return context(teacher, folder / name, **{"data": source(), **options})


def search(teacher: Program, ctx: PassContext, **options: Any) -> PassResult:
    config = AutoDistilConfig(**{"epochs": 6, "multiple": 1, "lr": 0.05, **options})
    return AutoDistilSearch(config).run(teacher, ctx)


def inputs(ctx: PassContext) -> tuple[torch.Tensor, ...]:
    assert ctx.data.test is not None
    return ctx.data.test.take(torch.arange(48)).inputs


@pytest.mark.parametrize("labelled", [True, False])
def test_the_winner_follows_the_teacher_without_being_trained_again(
    teacher: Program, tmp_path: Path, labelled: bool
) -> None:
    ctx = around(teacher, tmp_path, data=source(labelled))
    result = search(teacher, ctx)
    plain = slice_program(teacher, Subnet.from_dict(result.metrics["subnet"]))
    assert result.modified and result.metrics["relation"] == "features"
    assert result.program.cost() == plain.cost()
    assert result.metrics["parameters"] == plain.cost().parameters < teacher.cost().parameters
    assert scoring.agreement(result.program, teacher, ctx.data.test) > 85
    goal, images = teacher(*inputs(ctx)), inputs(ctx)
    assert (result.program(*images) - goal).norm() < (plain(*images) - goal).norm()


def test_a_transformer_follows_the_relations_of_its_last_attention(tmp_path: Path) -> None:
    bert = program("bert")
    ids = torch.randint(3, 60, (24, 12), generator=torch.Generator().manual_seed(0))
    split = Tensors((ids, torch.ones_like(ids), torch.zeros_like(ids)))
    ctx = around(bert, tmp_path, data=DataSource(split, split, None))
    result = search(bert, ctx, space="small", latency="1s", epochs=1, lr=1e-3, multiple=8, candidates=4)
    assert result.metrics["relation"] == "attention" and result.metrics["space"] == "small"
    assert scoring.logits(result.program, split.take(torch.arange(4)).inputs).isfinite().all()


def test_the_budget_chooses_the_sub_space(teacher: Program, tmp_path: Path) -> None:
    device = Device()
    whole = device.predict(teacher.kernels(), "float32").p50
    found = []
    for share in (1.0, 0.5, 0.25):
        ctx = around(teacher, tmp_path, f"{share}", budget=Budget(latency=share * whole))
        metrics = search(teacher, ctx, epochs=1).metrics
        assert metrics["latency_ms"] <= share * whole * 0.9
        found.append(metrics["space"])
    assert found == ["base", "small", "tiny"]


def test_a_latency_out_of_reach_ends_before_any_training(teacher: Program, tmp_path: Path) -> None:
    ctx = around(teacher, tmp_path, budget=Budget(latency="1us"))
    with pytest.raises(UsageError, match="the closest"):
        search(teacher, ctx)
    assert not list(ctx.workspace.glob("*.checkpoint"))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(teacher: Program, tmp_path: Path) -> None:
    found = [search(teacher, around(teacher, tmp_path, str(i), seed=s), epochs=2) for i, s in enumerate((5, 5, 6))]
    assert found[0].program.fingerprint == found[1].program.fingerprint != found[2].program.fingerprint
    assert found[0].metrics == found[1].metrics


@pytest.mark.parametrize("text", ["epoch", "ranked"])
def test_interrupted_and_run_again(
    teacher: Program, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autodistil, "TrainConfig", partial(TrainConfig, checkpoint_seconds=0))

    class Stop:
        def update(self, done: int, total: int, what: str = "") -> None:
            if text in what and done == 3:
                raise KeyboardInterrupt

        def note(self, text: str) -> None: ...

    whole = search(teacher, around(teacher, tmp_path, "whole"), space="base", latency="1s", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        search(teacher, around(teacher, tmp_path, "killed", progress=Stop()), space="base", latency="1s", epochs=2)
    again = search(teacher, around(teacher, tmp_path, "killed"), space="base", latency="1s", epochs=2)
    assert again.program.fingerprint == whole.program.fingerprint and again.metrics == whole.metrics


def test_the_given_program_stays_as_it_was(teacher: Program, tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in teacher.state.items()}
    search(teacher, around(teacher, tmp_path), epochs=1)
    assert all(torch.equal(before[k], v) for k, v in teacher.state.items())


def test_fewer_subnets_may_be_ranked(teacher: Program, tmp_path: Path) -> None:
    metrics = search(teacher, around(teacher, tmp_path), epochs=1, candidates=3, latency="1s").metrics
    assert metrics["ranked"] == 3 < metrics["subnets"]


def test_outputs_without_classes_are_refused(tmp_path: Path) -> None:
    model = traced(lambda x: x.sum(1), 2, 5)
    split = Tensors((torch.rand(12, 5),))
    with pytest.raises(UnsupportedError, match="classes"):
        search(model, around(model, tmp_path, data=DataSource(split, split, None)))


def test_made_up_images_are_not_augmented(teacher: Program, tmp_path: Path) -> None:
    ctx = around(teacher, tmp_path, data=replace(source(labelled=False), synthetic=True))
    assert search(teacher, ctx, epochs=1).modified
    assert space_of(teacher).groups
