"""Soft targets, kept and fresh."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from compactor.errors import InputError, UnsupportedError
from compactor.training import Micro, TrainConfig, fit, losses, taps
from compactor.training.cache import Teacher, outputs
from compactor.training.distillation import Decoupled, Distillation, Draws, Relation, TopK
from compactor.training.views import Views
from tests.training.samples import blobs, network, program, trained


def test_soft_loss_is_scaled_kl_and_has_the_gradient_of_cross_entropy_at_one() -> None:
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    found = losses.soft(student, teacher, 2.0)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    torch.testing.assert_close(found, 4 * (p * (p / q).log()).sum(-1).mean())
    first = torch.autograd.grad(losses.soft(student, teacher, 1.0), student)[0]
    second = torch.autograd.grad(F.cross_entropy(student, teacher.softmax(-1)), student)[0]
    torch.testing.assert_close(first, second)
    assert float(losses.soft(teacher, teacher, 4.0)) == pytest.approx(0, abs=1e-6)


def test_outputs_are_computed_once_and_equal_the_teacher(tmp_path: Path) -> None:
    made, split = program(network(4)), blobs(40, 0)
    teacher = Teacher(made)
    first = outputs(teacher, split, tmp_path, batch=16)
    torch.testing.assert_close(first, made(split.images), rtol=0.05, atol=0.05)
    asked = split.asked
    assert torch.equal(outputs(teacher, split, tmp_path, batch=16), first) and split.asked == asked
    other = Teacher(program(network(4, seed=1)))
    assert not torch.equal(outputs(other, split, tmp_path, batch=16), first)


def test_outputs_follow_lengths_but_keep_the_order(tmp_path: Path) -> None:
    made, split = program(network(4)), blobs(40, 0)
    plain = outputs(Teacher(made), split, tmp_path, name="plain", batch=40)
    split.lengths = torch.arange(40, 0, -1)  # type: ignore[attr-defined]
    torch.testing.assert_close(outputs(Teacher(made), split, tmp_path, name="sorted", batch=40), plain)


@pytest.mark.parametrize("mirrored", [True, False])
def test_kept_outputs_train_the_same_as_a_teacher_in_every_step(tmp_path: Path, mirrored: bool) -> None:
    split = blobs(64, 0)
    teacher = Teacher(program(trained(network(8), split)))
    states = []
    for keep in (True, False):
        folder = tmp_path / str(keep)
        folder.mkdir()
        views = Views(64, 1, mirrored, seed=0)
        objective = Distillation(teacher, split, folder, views=views, count=2, keep=keep)
        config = TrainConfig(epochs=4, batch=16, lr=0.01, optimizer="sgd", reduced=False)
        states.append(fit(program(network(4)).module(train=True), objective, split, config, folder).state)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4)


def test_a_second_epoch_runs_no_teacher(tmp_path: Path) -> None:
    split = blobs(32, 0)
    teacher = Teacher(program(network(4)))
    objective = Distillation(teacher, split, tmp_path)
    runs = 0
    module = teacher._module

    def counted(*inputs):
        nonlocal runs
        runs += 1
        return module(*inputs)

    teacher._module = counted
    fit(program(network(2)).module(train=True), objective, split, TrainConfig(epochs=3, batch=8), tmp_path)
    assert runs == 1


def test_labels_count_by_their_weight(tmp_path: Path) -> None:
    split = blobs(16, 0)
    student = program(network(2)).module()
    micro = Micro(torch.arange(16), 0, 0, 1, 0)

    def loss(weight: float) -> float:
        objective = Distillation(Teacher(program(network(4))), split, tmp_path, label_weight=weight)
        return objective.loss(student, objective.batch(micro), micro).item()

    hard = losses.hard(student(split.images)[0], split.labels).item()
    assert loss(1.0) == pytest.approx(hard, rel=1e-5)
    assert loss(0.25) == pytest.approx(0.75 * loss(0.0) + 0.25 * hard, rel=1e-5)


def test_outputs_that_are_not_logits_are_refused(tmp_path: Path) -> None:
    made = program(torch.nn.Conv2d(1, 2, 3))
    with pytest.raises(UnsupportedError, match=r"\(2, 2, 6, 6\)"):
        Distillation(Teacher(made), blobs(4, 0), tmp_path)


def test_a_teacher_with_nan_weights_is_refused() -> None:
    module = network(2)
    with torch.no_grad():
        module[0].weight[0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        Teacher(program(module))((blobs(4, 0).images,))


def test_decoupled_distillation_takes_the_true_class_and_rises(tmp_path: Path) -> None:
    split, student = blobs(16, 0), program(network(2)).module()
    teacher = Teacher(program(network(4)))
    logits, found = teacher((split.images,)), student(split.images)[0]

    def loss(step: int, labelled: bool = True) -> float:
        data = split if labelled else blobs(16, 0, labelled=False)
        objective = Distillation(teacher, data, tmp_path, term=Decoupled(warmup=0.5))
        micro = Micro(torch.arange(16), step, 0, 10, 0)
        return objective.loss(student, objective.batch(micro), micro).item()

    assert loss(7) == pytest.approx(losses.decoupled(found, logits, split.labels, 4.0).item(), rel=1e-4)
    assert loss(7, labelled=False) == pytest.approx(
        losses.decoupled(found, logits, logits.argmax(-1), 4.0).item(), rel=1e-4
    )
    assert [loss(step) / loss(9) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_relations_count_by_their_weight(tmp_path: Path) -> None:
    split, made = blobs(16, 0), program(network(4))
    student = taps.tapped(program(network(2)))
    micro = Micro(torch.arange(16), 0, 0, 1, 0)
    found = []
    for weight in (1.0, 2.0):
        objective = Distillation(Teacher(made), split, tmp_path, guide=Relation(made, student.outputs, weight))
        found.append(objective.loss(student.module(), objective.batch(micro), micro).item())
    plain = Distillation(Teacher(made), split, tmp_path).loss(student.module(), split.take(micro.indices), micro).item()
    ours, theirs = student(split.images)[1], taps.tapped(made)(split.images)[1]
    assert found[0] - plain == pytest.approx(losses.feature_relation(ours, theirs).item(), rel=1e-3)
    assert found[1] - plain == pytest.approx(2 * (found[0] - plain), rel=1e-3)


def test_draws_are_unbiased_and_the_same_every_time() -> None:
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * 2
    draws = Draws(4000, 2.0, seed=3)
    drawn = draws.drawn(logits, torch.arange(50), 0)
    assert drawn.dtype == torch.int32 and torch.equal(drawn, draws.drawn(logits, torch.arange(50), 0))
    shares = (draws.logits(drawn, 12) / 2).softmax(-1)
    torch.testing.assert_close(shares, (logits / 2).softmax(-1), rtol=0, atol=0.04)
    few = []
    for seed in range(300):
        three = Draws(3, 2.0, seed)
        few.append((three.logits(three.drawn(logits, torch.arange(50), 0), 12) / 2).softmax(-1))
    torch.testing.assert_close(torch.stack(few).mean(0), (logits / 2).softmax(-1), rtol=0, atol=0.15)
    assert not torch.equal(drawn, draws.drawn(logits, torch.arange(50), 1)), "another view, other draws"


@pytest.mark.parametrize("term", [None, TopK(1), TopK(2, 0.5, True), Decoupled()])
def test_drawn_targets_are_kept_and_trained_on(tmp_path: Path, term) -> None:
    split = blobs(32, 0)
    teacher = Teacher(program(trained(network(8), split)))
    objective = Distillation(teacher, split, tmp_path, term=term, draws=Draws(5, 4.0))
    student = program(network(2)).module()
    micro = Micro(torch.arange(32), 0, 0, 1, 0)
    loss = objective.loss(student, objective.batch(micro), micro)
    assert loss.isfinite() and loss > 0
    (file,) = tmp_path.glob("*.outputs")
    kept = torch.load(file, weights_only=True)["outputs"]
    assert kept.shape == (32, 5) and kept.dtype == torch.int32
    assert objective.key != Distillation(teacher, split, tmp_path, term=term, draws=Draws(6, 4.0)).key


def test_top_k_takes_its_options(tmp_path: Path) -> None:
    split, student = blobs(16, 0), program(network(2)).module()
    teacher = Teacher(program(network(4)))
    objective = Distillation(teacher, split, tmp_path, term=TopK(1, 0.5, reverse=True))
    micro = Micro(torch.arange(16), 0, 0, 1, 0)
    wanted = losses.top_k(student(split.images)[0], teacher((split.images,)), 4.0, k=1, tail=0.5, reverse=True)
    assert objective.loss(student, objective.batch(micro), micro).item() == pytest.approx(wanted.item(), rel=1e-4)
