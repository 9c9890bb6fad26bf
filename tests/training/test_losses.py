"""Losses against formulas written out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compactor.training import losses


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(st.integers(2, 6), st.floats(0.5, 8), st.integers(0, 1000))
def test_decoupled_parts_add_up_to_the_whole(classes: int, temperature: float, seed: int) -> None:
    """KL = TCKD + (1 - p of the target) NCKD (DKD, equation 5)."""
    student, teacher = random(1, classes, seed=seed), random(1, classes, seed=seed + 1)
    target = teacher.argmax(-1)
    rest = (teacher / temperature).softmax(-1).sort(descending=True).values[0, 1:].sum().item()
    found = losses.decoupled(student, teacher, target, temperature, alpha=1.0, beta=rest)
    torch.testing.assert_close(found, losses.soft(student, teacher, temperature), rtol=1e-3, atol=1e-4)


def test_decoupled_against_its_formula() -> None:
    student, teacher, target = random(4, 5), random(4, 5, seed=1), torch.tensor([0, 3, 4, 1])
    p, q = (teacher / 4).softmax(-1), (student / 4).softmax(-1)
    total = torch.zeros(())
    for i, t in enumerate(target.tolist()):
        others = [c for c in range(5) if c != t]
        binary = p[i, t] * (p[i, t] / q[i, t]).log() + (1 - p[i, t]) * ((1 - p[i, t]) / (1 - q[i, t])).log()
        ph, qh = p[i, others] / p[i, others].sum(), q[i, others] / q[i, others].sum()
        total = total + binary + 8 * (ph * (ph / qh).log()).sum()
    torch.testing.assert_close(losses.decoupled(student, teacher, target, 4.0), 16 * total / 4)


def test_decoupled_of_tokens_is_the_mean_over_them() -> None:
    student, teacher, target = random(2, 3, 5), random(2, 3, 5, seed=1), random(2, 3, 5, seed=1).argmax(-1)
    flat = losses.decoupled(student.view(6, 5), teacher.view(6, 5), target.view(6), 2.0)
    torch.testing.assert_close(losses.decoupled(student, teacher, target, 2.0), flat)


def test_states_are_relative_to_the_teacher() -> None:
    student, teacher = random(2, 3, 4), random(2, 3, 4, seed=1)
    expected = (student - teacher).square().sum() / teacher.square().sum()
    torch.testing.assert_close(losses.states(student, teacher), expected)
    torch.testing.assert_close(losses.states(100 * student, 100 * teacher), expected)


@pytest.mark.parametrize("loss", [losses.states, losses.smooth_states])
def test_padding_does_not_count(loss) -> None:
    student, teacher = random(2, 3, 4), random(2, 3, 4, seed=1)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    other = torch.where(valid[..., None], student, 7.0)
    torch.testing.assert_close(loss(student, teacher, valid), loss(other, teacher, valid))
    torch.testing.assert_close(loss(student[:1], teacher[:1]), loss(student[:1], teacher[:1], valid[:1]))
    assert not torch.allclose(loss(student, teacher), loss(other, teacher))


def test_smooth_states_normalise_the_teacher() -> None:
    student, teacher = random(2, 3, 4), random(2, 3, 4, seed=1)
    goal = (teacher - teacher.mean(-1, keepdim=True)) / (teacher.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    gap = (student - goal).abs()
    expected = torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean()
    torch.testing.assert_close(losses.smooth_states(student, teacher), expected)


def test_maps_are_compared_by_head_or_by_their_mean() -> None:
    student, teacher = random(2, 4, 3, 3).softmax(-1), random(2, 4, 3, 3, seed=1).softmax(-1)
    expected = (teacher * (teacher / student).log()).sum(-1).mean()
    torch.testing.assert_close(losses.maps(student, teacher), expected)
    mean = teacher.mean(1, keepdim=True)
    fewer = student[:, :2].mean(1, keepdim=True)
    torch.testing.assert_close(losses.maps(student[:, :2], teacher), (mean * (mean / fewer).log()).sum(-1).mean())
    assert losses.maps(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 3), st.floats(0.5, 8), st.booleans(), st.floats(0, 3), st.integers(0, 1000))
def test_top_k_of_all_classes_is_plain_divergence(
    classes: int, beyond: int, temperature: float, reverse: bool, tail: float, seed: int
) -> None:
    student, teacher = random(3, classes, seed=seed), random(3, classes, seed=seed + 1)
    pair = (teacher, student) if reverse else (student, teacher)
    found = losses.top_k(student, teacher, temperature, k=classes + beyond, tail=tail, reverse=reverse)
    assert torch.equal(found, losses.soft(*pair, temperature))
    but_one = losses.top_k(student, teacher, temperature, k=classes - 1, tail=tail, reverse=reverse)
    torch.testing.assert_close(but_one, found, rtol=1e-3, atol=1e-4)


def test_top_k_against_its_formula() -> None:
    student, teacher = random(4, 7), random(4, 7, seed=1)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    total = torch.zeros(())
    for i in range(4):
        best = p[i].topk(3).indices.tolist()
        rest = [c for c in range(7) if c not in best]
        head = (p[i, best] * (p[i, best] / q[i, best]).log()).sum()
        bucket = p[i, rest].sum() * (p[i, rest].sum() / q[i, rest].sum()).log()
        pt, qt = p[i, rest] / p[i, rest].sum(), q[i, rest] / q[i, rest].sum()
        total = total + head + bucket + 0.3 * (pt * (pt / qt).log()).sum()
    torch.testing.assert_close(losses.top_k(student, teacher, 2.0, k=3, tail=0.3), 4 * total / 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.booleans(), st.integers(0, 1000))
def test_top_k_is_least_at_the_teacher_and_finite_far_from_it(k: int, reverse: bool, seed: int) -> None:
    teacher = random(2, 3, 6, seed=seed)
    assert float(losses.top_k(teacher, teacher, 1.0, k=k, reverse=reverse)) == pytest.approx(0, abs=1e-5)
    far = (-80 * teacher).requires_grad_()
    loss = losses.top_k(far, teacher, 1.0, k=k, reverse=reverse)
    loss.backward()
    assert loss > 0 and loss.isfinite() and far.grad is not None and far.grad.isfinite().all()
