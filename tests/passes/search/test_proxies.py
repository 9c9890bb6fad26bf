"""Scores without training: what they compute, where they look, and that nothing but the seed decides them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compactor.data import Batch
from compactor.errors import InputError, UsageError
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.search import proxies
from compactor.passes.search.proxies import naswot, relation, semantic, swap
from compactor.passes.search.proxies.head import find_head
from compactor.passes.search.proxies.initial import initial
from compactor.passes.search.proxies.observation import class_gradient, gram, independence, observe
from compactor.passes.search.proxies.subject import WORST
from tests.models import program
from tests.passes.support import export, outputs

COSTS = proxies.Costs(1, 1, 1.0)


def batch(teacher: Program, size: int = 8, labels: bool = True) -> Batch:
    """Random inputs, labelled at random."""
    (classes,) = outputs(teacher, 1)[0].shape[1:]
    return Batch(teacher.example_inputs(size, seed=3), torch.arange(size) % classes if labels else None)


def scores(student: Program, teacher: Program, text: str, look: Batch, seeds: int = 1) -> tuple[float, ...]:
    """The scores of a student."""
    setting, found = proxies.Setting.of(teacher, [look], range(seeds)), proxies.parse(text)
    return proxies.values(setting.subject(student, COSTS, found), found)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(2, 7), st.integers(0, 999))
def test_semantic_is_the_distance_of_the_matrices(classes: int, channels: int, seed: int) -> None:
    a, b = torch.randn(2, classes, channels, generator=torch.Generator().manual_seed(seed))
    a[0, 0] = 0.0

    def matrices(w: Tensor) -> Tensor:
        return F.normalize(w[:, :, None] * w[:, None, :], dim=2)

    expected = float((matrices(a) - matrices(b)).square().sum()) / (channels * classes)
    assert semantic.distance(a, b) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert semantic.distance(a, a) == pytest.approx(0, abs=1e-5)


@settings(deadline=None)
@given(st.integers(2, 8), st.integers(0, 999))
def test_relation_does_not_depend_on_scale_or_the_order_of_channels(samples: int, seed: int) -> None:
    features = torch.randn(samples, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
    other = torch.randn(samples, 4, 2, 2, generator=torch.Generator().manual_seed(seed + 1))
    own = gram(features)
    torch.testing.assert_close(own.norm(dim=1), torch.ones(samples))
    torch.testing.assert_close(gram(1e15 * features.flip(1)), own)
    distance = relation.distance(own, gram(other))
    assert 0 <= distance <= 4 / samples + 1e-6
    assert distance == pytest.approx(float((own - gram(other)).square().sum()) / samples**2)


def test_gradient_of_the_classifier_is_that_of_autograd() -> None:
    pooled, weight, labels = torch.randn(6, 5), torch.randn(4, 5, requires_grad=True), torch.tensor([0, 1, 2, 3, 0, 1])
    logits = pooled @ weight.T
    F.cross_entropy(logits, labels).backward()
    torch.testing.assert_close(class_gradient(pooled, logits.detach(), labels), weight.grad)


@settings(deadline=None)
@given(st.integers(1, 70), st.integers(2, 200), st.integers(0, 99))
def test_codes(samples: int, units: int, seed: int) -> None:
    signs = np.random.default_rng(seed).integers(0, 2, (units, samples)).astype(bool)
    signs[units // 2 :] = signs[: units - units // 2]
    codes = np.packbits(signs, axis=1)
    assert swap.distinct(codes, samples) == len(np.unique(signs[:, : swap.SAMPLES], axis=0))
    plain = signs.astype(float)
    kernel = plain.T @ plain + (1 - plain).T @ (1 - plain)
    _, expected = np.linalg.slogdet(kernel)
    found = naswot.log_determinant(codes, samples)
    if np.linalg.matrix_rank(kernel) == samples:
        assert found == pytest.approx(expected, rel=1e-4)


@settings(deadline=None)
@given(st.integers(2, 7), st.integers(0, 99))
def test_independence_is_the_least_eigenvalue_of_the_correlations(channels: int, seed: int) -> None:
    features = torch.randn(channels, 50, generator=torch.Generator().manual_seed(seed))
    expected = float(torch.linalg.eigvalsh(torch.corrcoef(features))[0])
    assert independence(3 * features + 1) == pytest.approx(expected, abs=1e-4)
    assert independence(torch.cat([features, features[:1]])) == pytest.approx(0, abs=1e-4), "a channel twice"
    assert independence(features[:, :channels]) == 0, "too few positions"
    many = torch.randn(256, 900, generator=torch.Generator().manual_seed(seed))
    assert independence(many) == pytest.approx(32 * independence(many[torch.linspace(0, 255, 8).long()]))


@pytest.mark.parametrize(
    ("name", "features", "pooled"),
    [
        ("resnet_a", (8, 16, 8, 8), True),
        ("mobilenet_v2", None, True),
        ("vit", None, True),
        ("bert", None, True),
        ("distilbert", None, True),
        ("gpt2", None, False),
    ],
)
def test_features_are_those_before_pooling(name: str, features: tuple[int, ...] | None, pooled: bool) -> None:
    teacher = canonical(program(name))[0]
    head = find_head(teacher)
    shape = tuple(teacher.values[head.features].shape)
    assert len(shape) >= 3, "a map or tokens, not a vector"
    assert (head.pooled is not None) == pooled
    if head.pooled is not None:
        assert teacher.values[head.pooled].numel() < math.prod(shape)
    if features is not None:
        assert shape[1:] == features[1:] or len(shape) == len(features)


def test_every_architecture_can_be_observed(architecture: str) -> None:
    teacher = canonical(program(architecture))[0]
    before = {k: v.clone() for k, v in teacher.state.items()}
    look = Batch(teacher.example_inputs(4, seed=1), None)
    first, again = (observe(teacher, look, 0, frozenset({"codes", "independence"})) for _ in range(2))
    assert first.gram.shape == (4, 4) and torch.isfinite(first.gram).all()
    assert torch.equal(first.gram, again.gram) and np.array_equal(first.codes, again.codes)
    assert all(torch.equal(v, teacher.state[k]) for k, v in before.items()), "the Program stays as it is"


def test_initial_weights() -> None:
    teacher = program("resnet_a")
    state = initial(teacher, 0)
    norms = {n for n in teacher.trainable if teacher.state[n].dim() == 1}
    first = min(teacher.trainable - norms)
    filters = [state[n] for n in teacher.trainable if teacher.state[n].dim() == 4]
    assert {float(v) for n in norms for v in state[n].unique()} == {0.0, 1.0}
    drawn = torch.cat([f.flatten() for f in filters])
    assert abs(float(drawn.mean())) < 0.05 and abs(float(drawn.std()) - 1) < 0.05
    assert all(torch.equal(initial(teacher, 0)[n], state[n]) for n in state)
    assert not torch.equal(initial(teacher, 1)[first], state[first])


def test_the_teacher_relates_to_itself_best() -> None:
    teacher = program("resnet_a")
    look = batch(teacher, 16)
    assert scores(teacher, teacher, "relation+semantic+diswot", look) == pytest.approx((0, 0, 0), abs=1e-5)
    space = space_of(teacher)
    student = slice_program(teacher, space.sample(0, keep=0.5, depth=0.5))
    related, both = scores(student, teacher, "relation+diswot", look)
    assert related < -1e-4 and both == related, "another width: relation alone"
    names = [g.name for g in space.groups]
    same_width = next(s for n in names if _same_width(s := slice_program(teacher, space.choose({n: (0, 1)})), teacher))
    assert scores(same_width, teacher, "diswot", look)[0] < scores(same_width, teacher, "relation", look)[0]
    unlabelled = batch(teacher, 16, labels=False)
    assert scores(same_width, teacher, "diswot", unlabelled) == scores(same_width, teacher, "relation", unlabelled)


def _same_width(student: Program, teacher: Program) -> bool:
    first, second = find_head(student).pooled, find_head(teacher).pooled
    return first is not None and second is not None and student.values[first].shape == teacher.values[second].shape


class Deep(nn.Module):
    """Without norms: values overflow when weights are drawn from N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(m for _ in range(60) for m in (nn.Linear(64, 64), nn.ReLU())))
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x))
        return y


def test_overflow_is_the_worst_score() -> None:
    deep, shallow = export(Deep(), (4, 64)), export(nn.Linear(64, 10), (4, 64))
    look = Batch(deep.example_inputs(4), None)
    assert scores(deep, shallow, "relation", look) == (WORST,)
    with pytest.raises(InputError, match="features hold NaN or infinite"):
        scores(deep, deep, "relation", look)


def test_wider_networks_have_more_patterns() -> None:
    teacher = program("resnet_a")
    space = space_of(teacher)
    look = batch(teacher, 16)
    found = [
        scores(slice_program(teacher, space.sample(0, keep=keep, depth=1.0)), teacher, "swap+naswot", look)
        for keep in (0.2, 0.5, 1.0)
    ]
    assert found == sorted(found)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 3)), min_size=1, max_size=20))
def test_combined_is_a_mean_of_ranks(rows: list[tuple[float, int]]) -> None:
    table = np.array(rows, dtype=float)
    found = proxies.combined(table)
    assert ((found >= 0) & (found <= 1)).all()
    stretched = table * [1000.0, 0.01]
    assert np.allclose(proxies.combined(stretched), found), "units do not matter"
    for i, j in np.ndindex(len(rows), len(rows)):
        if (table[i] > table[j]).all():
            assert found[i] > found[j]


def test_unknown_scores_are_refused() -> None:
    assert [p.name for p in proxies.parse("default")] == proxies.DEFAULT.split("+")
    with pytest.raises(UsageError, match="did you mean relation"):
        proxies.parse("relatoin+macs")
