"""Units that repeat: wider students that compute the same, or say where they do not."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compactor.errors import InputError
from compactor.ir.archive import load
from compactor.ir.exported import from_exported
from compactor.ir.masking import mask_program
from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace, space_of
from compactor.ir.subnet import Subnet, ranked
from tests.ir.test_invariants import error
from tests.ir.test_plans import sizes
from tests.models import program
from tests.strategies import Recipe, recipes

CNNS = ("resnet_a", "resnet_bottleneck", "resnext", "mobilenet_v2", "mobilenet_v3", "shufflenet", "densenet")
TRANSFORMERS = ("bert", "bert_eager", "distilbert", "vit", "vit_eager", "llama", "packed_chunk", "packed_view", "gated")
TIED = ("tied_lm", "gpt2")


def repeated(space: SearchSpace, seed: int) -> Subnet:
    """A random choice in which every unit that is kept, and may repeat, is kept twice."""
    narrow = space.sample(seed, keep=(0.3, 0.8))
    kept = {g.name: tuple(range(g.size)) for g in space.groups} | dict(narrow.kept)
    return space.choose({n: u if n in space.unrepeatable else u * 2 for n, u in kept.items()}, narrow.dropped)


def check(model: Program, space: SearchSpace, subnet: Subnet, seed: int = 0) -> Program:
    """What holds of every slice; returns it."""
    student = slice_program(model, subnet)
    if not space.changes(subnet):
        assert error(student, mask_program(model, subnet), model.example_inputs(3, seed)) <= 2e-5
    assert student.cost() == space.cost(subnet)
    assert sizes(space.kernels(subnet)) == sizes(student.kernels())
    assert space.kernels(subnet) == space.regrouped(subnet)
    return student


@pytest.mark.parametrize("seed", range(3))
def test_architectures(architecture: str, seed: int) -> None:
    teacher = program(architecture)
    space = space_of(teacher)
    check(teacher, space, repeated(space, seed), seed)
    check(teacher, space, space.sample(seed, keep=(0.5, 2.0)), seed)


@pytest.mark.parametrize("name", [*CNNS, *TRANSFORMERS])
def test_all_of_a_known_architecture_repeats_and_computes_the_same(name: str) -> None:
    space = space_of(program(name))
    subnet = repeated(space, 0)
    assert not space.unrepeatable
    assert not space.changes(subnet)
    assert all(len(units) == 2 * len(set(units)) for _, units in subnet.kept)
    twice = space.choose({g.name: ranked(range(g.size), 2 * g.size) for g in space.groups})
    student = slice_program(program(name), twice)
    assert error(student, program(name), program(name).example_inputs(2)) <= 2e-5
    assert student.cost().macs > 1.9 * program(name).cost().macs


@pytest.mark.parametrize("name", CNNS)
def test_any_units_of_a_cnn_may_repeat(name: str) -> None:
    space = space_of(program(name))
    assert not any(space.changes(space.sample(seed, keep=(0.5, 3.0))) for seed in range(4))


@pytest.mark.parametrize("name", ["bert", "vit", "llama"])
def test_heads_and_units_of_a_transformer_may_repeat_its_stream_as_a_whole(name: str) -> None:
    space = space_of(program(name))
    inner = {g.name: ranked(range(g.size), g.size + 1) for g in space.groups if g.kind != "hidden"}
    assert not space.changes(space.choose(inner))
    stream = next(g for g in space.groups if g.kind == "hidden")
    assert not space.changes(space.choose({stream.name: ranked(range(stream.size), 2 * stream.size)}))
    changes = space.changes(space.choose({stream.name: ranked(range(stream.size), stream.size + 1)}))
    assert changes
    assert all("mean weighs" in change.reason for change in changes)


@pytest.mark.parametrize("name", TIED)
def test_a_table_that_is_the_head_too_cannot_be_shared_out(name: str) -> None:
    space = space_of(program(name))
    stream = next(g for g in space.groups if g.kind == "hidden")
    (change,) = space.changes(space.choose({stream.name: ranked(range(stream.size), 2 * stream.size)}))
    assert "cannot be shared out: embedding uses it too" in change.reason


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(recipe=recipes(), seed=st.integers(0, 1000))
def test_generated_graphs(recipe: Recipe, seed: int) -> None:
    model = recipe.program()
    space = SearchSpace(model)
    check(model, space, repeated(space, seed), seed)
    check(model, space, space.sample(seed, keep=(0.5, 2.0)), seed)


def test_a_wide_slice_is_told_by_seed_and_saved_whole(tmp_path: Path) -> None:
    teacher = program("resnet_b")
    subnet = space_of(teacher).sample(0, keep=2.0)
    student = slice_program(teacher, subnet)
    assert slice_program(teacher, Subnet.from_dict(subnet.to_dict())).fingerprint == student.fingerprint
    other = slice_program(teacher, subnet, seed=1)
    assert other.fingerprint != student.fingerprint
    assert error(other, student, teacher.example_inputs(2)) <= 1e-5
    student.save(tmp_path / "student.pt2")
    assert load(tmp_path / "student.pt2").fingerprint == student.fingerprint


@pytest.mark.parametrize("name", ["resnet_b", "bert", "mobilenet_v2"])
def test_wide_slices_compose(name: str) -> None:
    """A student that was widened is sliced and widened like any other."""
    first = slice_program(program(name), repeated(space_of(program(name)), 1))
    space = SearchSpace(first)
    subnet = space.sample(2)
    assert error(slice_program(first, subnet), mask_program(first, subnet), first.example_inputs(2)) <= 1e-5
    check(first, space, repeated(space, 3))


class Mlp(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


def exported(module: nn.Module, *inputs: Tensor) -> Program:
    return from_exported(torch.export.export(module.eval(), inputs))


def test_training_tells_copies_apart() -> None:
    torch.manual_seed(0)
    model = exported(Mlp(), torch.rand(4, 5))
    space = SearchSpace(model)
    (group,) = space.groups
    student = slice_program(model, space.choose({group.name: ranked(range(8), 16)}))
    assert torch.equal(student.state["up.weight"][0], student.state["up.weight"][1])
    module = student.module(train=True)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.rand(4, 5))[0].square().mean().backward()
        optimizer.step()
    up = module.get_parameter("up.weight").detach()
    assert (up[0::2] - up[1::2]).abs().max(1).values.min() > 1e-6


class Products(nn.Module):
    """Attention of one head, written out over whole rows: two activations meet along an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2), -1)
        return weights @ self.value(x)


class Total(nn.Module):
    """A sum of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.up(x)).sum(1)


@pytest.mark.parametrize(("module", "shape", "op"), [(Products(), (1, 3, 6), "matmul"), (Total(), (1, 5), "sum_1")])
def test_sums_of_activations_are_named(module: nn.Module, shape: tuple[int, ...], op: str) -> None:
    space = SearchSpace(exported(module, torch.rand(shape)))
    (group,) = space.groups
    (change,) = space.changes(space.choose({group.name: ranked(range(group.size), group.size + 1)}))
    assert change.node == op
    assert "no stored weight" in change.reason
    assert not space.changes(space.choose({group.name: [0, 1]}))


class Mixed(nn.Module):
    """Channels twice on one axis: as flattened maps and as means."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(20, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat((x.flatten(1), x.mean((2, 3))), 1))


def test_what_cannot_repeat_is_refused_with_its_reason() -> None:
    space = SearchSpace(exported(Mixed(), torch.rand(1, 3, 4, 4)))
    (group,) = space.groups
    assert "runs of different lengths at" in space.unrepeatable[group.name]
    with pytest.raises(InputError, match="cannot repeat: its units lie together"):
        space.choose({group.name: [0, 0, 1]})
    assert space.choices(group, wider=2.0) == (1, 2, 3, 4)
    assert space.sample(0, keep=2.0) == space.full()


def test_choices_and_ranked_units() -> None:
    space = space_of(program("resnet_b"))
    group = next(g for g in space.groups if g.size == 8)
    assert space.choices(group, multiple=3) == (3, 6, 8)
    assert space.choices(group, wider=2.0, multiple=4) == (4, 8, 12, 16)
    assert ranked([2, 0, 1], 2) == (2, 0)
    assert ranked([2, 0, 1], 5) == (2, 0, 1, 2, 0)
    subnet = space.choose({group.name: ranked([7, *range(7)], 9)})
    assert dict(subnet.kept)[group.name] == (0, 1, 2, 3, 4, 5, 6, 7, 7)
    assert subnet != space.full()
    assert space.choose({group.name: range(8)}) == space.full()


def test_the_probe_repeats_units(architecture: str) -> None:
    verify_rules(space_of(program(architecture)), repeat=True)
