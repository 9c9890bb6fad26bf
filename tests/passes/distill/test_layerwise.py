"""`distill.layerwise` and `distill.ted` on small teachers: with labels, without, repeated, resumed."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compactor import scoring
from compactor.data import DataSource
from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.passes.distill import student as student_module
from compactor.passes.distill import ted as ted_module
from compactor.passes.distill.layerwise import LayerwiseConfig, LayerwiseDistillation
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.distill.ted import TaskAwareDistillation, TedConfig
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassResult
from compactor.training import Micro, TrainConfig, layerwise, losses
from compactor.training.filters import Filters, FilterTask, aligned, guided
from compactor.training.layerwise import Layerwise, Weights
from compactor.training.pairing import Pair
from compactor.training.projection import HIDDEN
from tests.models import program
from tests.passes.distill.support import Stop, context, encoder, sequences, sliced
from tests.training.samples import blobs, network, source, trained
from tests.training.samples import program as exported

PASSES = ["layerwise", "ted"]


def distil(which: str, student: Program, ctx: PassContext, **options: Any) -> PassResult:
    given = {"epochs": 2, "ema": 0.0, "lr": 2e-3, "batch": 16, "variants": 0, **options}
    if which == "ted":
        return TaskAwareDistillation(TedConfig(**{"filter_epochs": 2, **given})).run(student, ctx)
    return LayerwiseDistillation(LayerwiseConfig(**given)).run(student, ctx)


@pytest.fixture(scope="module")
def data() -> DataSource:
    return sequences(encoder())


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_student_learns(which: str, labelled: bool, tmp_path: Path) -> None:
    data = sequences(encoder(), labelled, samples=256)
    student = sliced(encoder(), drop=2)
    result = distil(which, student, context(encoder(), data, tmp_path), epochs=12)
    assert result.modified and result.metrics["after"] > result.metrics["before"]
    assert result.metrics["metric"] == ("dev accuracy" if labelled else "dev agreement")
    assert result.program.cost() == student.cost() and result.metrics["matches"]
    assert data.test is not None
    assert scoring.agreement(result.program, encoder(), data.test) > scoring.agreement(student, encoder(), data.test)


@pytest.mark.parametrize("which", PASSES)
def test_convolutions_learn_too(which: str, tmp_path: Path) -> None:
    teacher = exported(trained(network(8), blobs(96, 0)))
    result = distil(which, sliced(teacher, drop=0), context(teacher, source(), tmp_path), epochs=6, lr=0.02)
    assert result.modified and result.metrics["after"] > 85 and len(result.metrics["matches"]) == 2


@pytest.mark.parametrize("which", PASSES)
def test_the_same_seed_gives_the_same_bytes(which: str, data: DataSource, tmp_path: Path) -> None:
    student = sliced(encoder())
    first, second = (distil(which, student, context(encoder(), data, tmp_path / name, seed=3)) for name in "ab")
    assert first.program.fingerprint == second.program.fingerprint and first.metrics == second.metrics


@pytest.mark.parametrize("which", PASSES)
def test_interrupted_and_run_again(
    which: str, data: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (student_module, ted_module):
        monkeypatch.setattr(module, "TrainConfig", partial(TrainConfig, checkpoint_seconds=0))
    student = sliced(encoder())
    whole = distil(which, student, context(encoder(), data, tmp_path / "a"), epochs=3)
    for at in (6, 9):
        with pytest.raises(KeyboardInterrupt):
            distil(which, student, context(encoder(), data, tmp_path / "b", progress=Stop(at)), epochs=3)
    again = distil(which, student, context(encoder(), data, tmp_path / "b"), epochs=3)
    assert again.program.fingerprint == whole.program.fingerprint and again.metrics == whole.metrics


def test_labels_do_not_matter_to_layers(data: DataSource, tmp_path: Path) -> None:
    """No hard labels while there is a teacher: what is trained is the same without them."""
    student = sliced(encoder())
    states = []
    for name, split in (("a", data), ("b", sequences(encoder(), labelled=False))):
        pair, weights = Pair(student, encoder(), 2), Weights()
        objective = Layerwise(pair, layerwise.reference(pair, weights), split.train, weights)
        micro = Micro(torch.arange(16), 0, 0, 1, 0)
        module = layerwise.student(pair, split.train, weights)
        states.append(objective.loss(module, objective.batch(micro), micro).item())
        assert name
    assert states[0] == states[1]


@pytest.mark.parametrize("attention", [0.0, 0.5])
def test_the_loss_is_the_sum_of_its_terms(attention: float, data: DataSource) -> None:
    teacher, student = encoder(), sliced(encoder())
    pair = Pair(student, teacher, 2)
    weights = Weights(0.3, 0.7, attention, temperature=3.0)
    objective = Layerwise(pair, layerwise.reference(pair, weights), data.train, weights, projector="linear")
    module = layerwise.student(pair, data.train, weights, projector="linear")
    micro = Micro(torch.arange(16), 0, 0, 1, 0)
    batch = objective.batch(micro)
    found, goal = module(*batch.inputs), objective.teacher(*batch.inputs)
    logits, wanted = next(iter(found.values())), next(iter(goal.values()))
    p, q = (wanted / 3).softmax(-1), (logits / 3).softmax(-1)
    expected = 0.3 * 9 * (p * (p / q).log()).sum(-1).mean()
    for t, s in objective.matched(found, goal):
        ours, theirs = found[HIDDEN + pair.streams[s].name], goal[HIDDEN + pair.layers[t].name]
        expected = expected + 0.7 * (ours - theirs).square().sum() / theirs.square().sum()
    for name in pair.attentions if attention else ():
        maps = [pair.map(side, name, teacher=side is goal) for side in (found, goal)]
        expected = expected + attention * losses.maps(*maps)
    torch.testing.assert_close(objective.loss(module, batch, micro), expected)


@pytest.mark.parametrize("term", ["attention", "relation"])
def test_further_terms_train(term: str, data: DataSource, tmp_path: Path) -> None:
    result = distil("layerwise", sliced(encoder()), context(encoder(), data, tmp_path), **{term: 1.0})
    assert result.metrics["steps"] == 8


@pytest.mark.parametrize("projector", ["linear", "orthogonal"])
def test_either_projector_trains(projector: str, data: DataSource, tmp_path: Path) -> None:
    result = distil("layerwise", sliced(encoder()), context(encoder(), data, tmp_path), projector=projector)
    assert result.metrics["steps"] == 8


@pytest.mark.parametrize("which", PASSES)
def test_text_with_padding(which: str, tmp_path: Path) -> None:
    teacher = program("bert")
    data = sequences(teacher, labelled=False, samples=32)
    result = distil(which, sliced(teacher, drop=1), context(teacher, data, tmp_path), epochs=1)
    assert result.metrics["steps"] == 2 and result.metrics["matches"]


@pytest.mark.parametrize("which", PASSES)
def test_a_student_of_another_teacher_is_refused_or_learns_logits(which: str, tmp_path: Path) -> None:
    teacher = encoder()
    stranger = exported(nn.Sequential(nn.Flatten(), nn.Linear(120, 7)), 12, 10)
    ctx = context(teacher, sequences(teacher), tmp_path)
    with pytest.raises(UnsupportedError, match="share no hidden state"):
        distil(which, stranger, ctx)
    assert "views" in distil(which, stranger, ctx, logits_if="unshared").metrics


@pytest.mark.parametrize("which", PASSES)
def test_states_are_kept_where_they_are_shown_again_and_fit(which: str, data: DataSource, tmp_path: Path) -> None:
    def kept(**options: Any) -> object:
        return distil(which, sliced(encoder()), context(encoder(), data, tmp_path), **options).metrics.get("kept")

    assert kept(epochs=2) is True
    assert kept(epochs=1) is False
    assert kept(epochs=2, cache=1e-6) is False
    assert kept(epochs=1, logits_if="unkept") is None


def test_two_students_share_the_states_that_are_kept(data: DataSource, tmp_path: Path) -> None:
    shared = tmp_path / "outputs"
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        ctx = replace(context(encoder(), data, tmp_path / str(number)), outputs=shared)
        student = sliced(encoder(), drop=number)
        assert distil("layerwise", student, ctx, layers=1).metrics["kept"]
        assert len(list(shared.glob("*/index"))) == 1


def test_logits_instead_are_those_of_the_other_pass(data: DataSource, tmp_path: Path) -> None:
    options = {"epochs": 2, "ema": 0.0, "batch": 16, "variants": 0}
    ctx = context(encoder(), data, tmp_path)
    found = distil("layerwise", sliced(encoder()), ctx, cache=0.0, logits_if="unkept", lr=1e-3)
    wanted = LogitsDistillation(LogitsConfig(**options, lr=1e-3)).run(sliced(encoder()), ctx)  # type: ignore[arg-type]
    assert found.program.fingerprint == wanted.program.fingerprint


def test_filters_train_on_frozen_networks(data: DataSource) -> None:
    pair = Pair(sliced(encoder()), encoder(), 2)
    partners, starts = aligned(pair, data.train, seed=0)
    task = FilterTask(pair, partners, data.train, temperature=2.0)
    filters = Filters(starts, pair.classes, seed=0)
    micro = Micro(torch.arange(16), 0, 0, 1, 0)
    batch = task.batch(micro)
    loss = task.loss(filters, batch, micro)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in filters.parameters())
    assert all(p.grad is None for network in (task.teacher, task.student) for p in network.parameters())
    goal = task.teacher(*batch.inputs)
    state = F.layer_norm(goal[HIDDEN + task.layers[0].name] @ filters.teacher[0].weight.T, (32,)).mean(1)
    heads = filters([goal[HIDDEN + s.name] for s in task.layers], [
        task.student(*batch.inputs)[HIDDEN + s.name] for s in task.streams
    ], None, False)  # fmt: skip
    torch.testing.assert_close(heads[0], filters.heads[0](state))
    torch.testing.assert_close(loss, torch.stack([F.cross_entropy(h, batch.labels) for h in heads]).mean())


def test_the_second_stage_trains_the_student_and_its_filters_only(data: DataSource) -> None:
    pair = Pair(sliced(encoder()), encoder(), 2)
    partners, starts = aligned(pair, data.train, seed=0)
    filters = Filters(starts, pair.classes, seed=0)
    student, teacher = guided(pair, partners, filters, dropout=False)
    trained_ = {id(p) for p in student.parameters() if p.requires_grad}
    assert {id(f.weight) for f in filters.student} <= trained_
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not {id(p) for p in filters.heads.parameters()} & (trained_ | {id(p) for p in teacher.parameters()})
