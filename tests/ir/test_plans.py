"""Kernels of subnets from the recorded grouping: equal to those of the sliced Program, and mostly at hand."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compactor.ir.exported import from_exported
from compactor.ir.kernels import Kernel
from compactor.ir.plans import Plan
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace, space_of
from compactor.ir.tape import Replay, Tape
from compactor.passes.canonicalize.canonicalize import canonical
from tests.models import program
from tests.strategies import Recipe, recipes


@pytest.mark.parametrize("seed", range(3))
def test_kernels_are_those_of_the_slice(architecture: str, seed: int) -> None:
    teacher = program(architecture)
    space = space_of(teacher)
    subnet = space.sample(seed, depth=0.5)
    student = slice_program(teacher, subnet)
    assert sizes(space.kernels(subnet)) == sizes(student.kernels())
    assert space.kernels(subnet) == space.regrouped(subnet)


def sizes(kernels: tuple[Kernel, ...]) -> list[tuple[object, ...]]:
    """All but the names of nodes, which a slice may change."""
    return [(k.kind, k.macs, k.inputs, k.weights, k.outputs, k.groups, k.rows, k.columns, k.depth) for k in kernels]


@pytest.mark.parametrize("name", ["resnet_bottleneck", "mobilenet_v3", "vit", "bert", "gpt2"])
def test_canonical_models_need_no_grouping(name: str) -> None:
    space = space_of(canonical(program(name))[0])
    plan = Plan(space)
    for seed in range(20):
        subnet = space.sample(seed, keep=(0.5, 1.0), depth=0.5)
        found = plan.kernels(subnet)
        assert found is None or found == space.regrouped(subnet)
    for block in space.blocks:
        assert plan.kernels(space.choose({}, (block.name,))) is not None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(recipes(), st.integers(0, 2**16))
def test_on_generated_graphs(recipe: Recipe, seed: int) -> None:
    space = SearchSpace(recipe.program())
    for depth in (1.0, 0.5):
        subnet = space.sample(seed, depth=depth)
        assert space.kernels(subnet) == space.regrouped(subnet)


class PreActivation(nn.Module):
    """Where a block goes, the activation behind it can join the convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = (nn.Conv2d(a, 8, 3, padding=1) for a in (3, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(torch.tanh(x))))


def test_a_removal_that_lets_kernels_fuse() -> None:
    model = from_exported(torch.export.export(PreActivation().eval(), (torch.rand(1, 3, 8, 8),)))
    space = SearchSpace(model)
    subnet = space.choose({}, tuple(b.name for b in space.blocks))
    assert len(space.blocks) == 1
    assert space.kernels(subnet) == space.regrouped(subnet)
    assert [k.kind for k in space.kernels(subnet)] == ["conv", "conv"]


@given(st.lists(st.integers(1, 50), min_size=3, max_size=3), st.lists(st.integers(1, 50), min_size=3, max_size=3))
def test_a_tape_repeats_what_was_done(first: list[int], second: list[int]) -> None:
    def work(a: int, b: int, c: int) -> list[list[int]]:
        wide = a * b if a < b else a * 3 + c
        return [[wide, min(wide, c) * 1, sum([a, b, c, 0])], [wide // c, 7, b * (c + 2)]]

    tape = Tape()
    replay = Replay(tape, work(*(tape.variable(i, n) for i, n in enumerate(first))))
    found = replay.run(torch.tensor(second).numpy())
    assert found is None or found.tolist() == work(*second)
    again = replay.run(torch.tensor(first).numpy())
    assert again is not None and again.tolist() == work(*first)


def test_what_a_tape_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="floor-divided"):
        Tape().variable(0, 3) - 1
