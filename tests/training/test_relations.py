"""Losses on relations: zero for what relates alike, whatever the widths; blind to padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.training.losses import attention_relation, feature_relation


def triple(heads: int, width: int, seed: int = 0, length: int = 5) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, length, width, generator=random) for _ in range(3)]


@pytest.mark.parametrize("softmax", [True, False])
def test_equal_relations_cost_nothing_and_others_do(softmax: bool) -> None:
    one = triple(4, 8)
    assert float(attention_relation(one, one, heads=4, softmax=softmax)) == 0
    assert float(attention_relation(triple(4, 8, seed=1), one, heads=4, softmax=softmax)) > 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 16), st.booleans())
def test_any_numbers_of_heads_compare(ours: int, theirs: int, heads: int, softmax: bool) -> None:
    loss = attention_relation(triple(ours, 4), triple(theirs, 4), heads=heads, softmax=softmax)
    assert loss.isfinite() and loss >= 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_a_rotation_of_the_width_changes_no_relation(seed: int, softmax: bool) -> None:
    one = triple(1, 6, seed)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))[0]
    assert float(attention_relation([x @ rotation for x in one], one, heads=1, softmax=softmax)) < 1e-8


@pytest.mark.parametrize("softmax", [True, False])
def test_padding_does_not_count(softmax: bool) -> None:
    ours, theirs = triple(2, 4), triple(4, 4, seed=1)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    want = attention_relation(ours, theirs, valid, softmax=softmax)
    for x in (*ours, *theirs):
        x[1, :, 3:] = 1e3
    torch.testing.assert_close(attention_relation(ours, theirs, valid, softmax=softmax), want)
    assert want.isfinite()


def test_gradients_reach_queries_keys_and_values() -> None:
    ours = [x.requires_grad_() for x in triple(2, 4)]
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    attention_relation(ours, triple(4, 4, seed=1), valid).backward()
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in ours)


def test_features_compare_whatever_their_widths() -> None:
    random = torch.Generator().manual_seed(0)
    goal = torch.randn(6, 3, 4, 4, generator=random)
    assert float(feature_relation(goal * 3, goal)) < 1e-10
    other = torch.randn(6, 2, 4, 4, generator=random, requires_grad=True)
    loss = feature_relation(other, goal)
    loss.backward()
    assert 0 < float(loss.detach()) <= 4 and other.grad.abs().sum() > 0
