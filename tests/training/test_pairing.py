"""Where students and their teachers correspond, on sliced real architectures."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.training.layerwise import Layerwise, Weights, reference, student
from compactor.training.pairing import Pair, plain, valid
from compactor.training.positions import attentions, hidden, streams
from compactor.training.projection import HIDDEN, Guided, Linear, Orthogonal, rows, start
from tests.models import program
from tests.passes.support import Tensors, export, reloaded
from tests.training.samples import network

NAMES = ["resnet_a", "mobilenet_v2", "densenet", "packed_chunk", "bert", "vit", "gpt2", "llama", "convnext"]


def sliced(teacher: Program, seed: int, keep: float = 0.5, depth: float = 0.6) -> Program:
    space = space_of(teacher)
    return slice_program(teacher, space.sample(seed, keep, depth))


def samples(model: Program, count: int = 8) -> Tensors:
    return Tensors(model.example_inputs(count, seed=4))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_slice_keeps_is_found_again(name: str) -> None:
    teacher = program(name)
    for seed in range(3):
        student = sliced(teacher, seed)
        found, nodes = streams(student, teacher)
        ours, theirs = [s.name for s in found], list(nodes)
        assert set(ours) <= set(theirs)
        assert [n for n in theirs if n in ours] == ours  # in the same order
        assert set(attentions(student)) <= set(attentions(teacher))


@pytest.mark.parametrize("name", ["resnet_a", "bert"])
def test_names_survive_the_store(name: str, tmp_path: Path) -> None:
    student = sliced(program(name), 0)
    again = reloaded(student, tmp_path)
    assert list(hidden(again)) == list(hidden(student)) and list(attentions(again)) == list(attentions(student))


def test_without_blocks_what_matrices_make_behind_their_activations() -> None:
    model = export(network(4).eval(), (2, 1, 8, 8))
    found = hidden(model)
    assert len(found) == 2 and all("relu" in node.name for node in found.values())


def test_a_stranger_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"distill\.logits"):
        streams(program("resnet_a"), program("vit"))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["resnet_a", "bert", "packed_chunk"]), st.integers(0, 1000), st.integers(1, 6))
def test_matches_are_monotone_and_fit(name: str, seed: int, layers: int) -> None:
    teacher = program(name)
    ours = sliced(teacher, seed)
    pair = Pair(ours, teacher, layers)
    split, weights = samples(teacher), Weights()
    module = student(pair, split, weights)
    objective = Layerwise(pair, reference(pair, weights), split, weights)
    inputs = split.inputs
    with torch.no_grad():
        found = objective.matched(module(*inputs), objective.teacher(*inputs))
    assert found and all(a > c and b > d for (a, b), (c, d) in pairwise(found))
    assert all(pair.fits(pair.layers[t], pair.streams[s]) for t, s in found)


@pytest.mark.parametrize("name", ["resnet_a", "packed_chunk", "bert"])
def test_the_teacher_matches_itself_without_error(name: str) -> None:
    teacher = program(name)
    pair = Pair(teacher, teacher, 3)
    weights = Weights(attention=1.0, relation=1.0)
    split = samples(teacher)
    objective = Layerwise(pair, reference(pair, weights), split, weights)
    same = plain(teacher, pair.streams, pair.watched(attention=True, relation=True)[0])
    with torch.no_grad():
        found, goal = same(*split.inputs), objective.teacher(*split.inputs)
    assert all(pair.layers[t].name == pair.streams[s].name for t, s in objective.matched(found, goal))
    assert objective._inside(found, goal).item() == pytest.approx(0, abs=1e-5)


def test_shared_projections_begin_where_they_fit_best() -> None:
    """A slice of the residual axis keeps some channels: the projection begins as their selection."""
    teacher = program("packed_chunk")
    space = space_of(teacher)
    stream = next(g for g in space.groups if g.kind == "hidden")
    kept = tuple(range(0, stream.size, 2))
    pair = Pair(slice_program(teacher, space.choose({stream.name: kept})), teacher, 2)
    module = student(pair, samples(teacher, 32), Weights())
    assert len(module.projections) == 1 and isinstance(module.projections[0], Orthogonal)
    weight = module.projections[0].weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(len(kept)), atol=1e-4, rtol=0)


def test_equal_widths_begin_as_they_are() -> None:
    x = torch.rand(2, 3, 4)
    assert torch.equal(start([(x, torch.rand(2, 3, 4))]), torch.eye(4))


def test_the_best_orthogonal_start_selects_what_was_kept() -> None:
    teacher = torch.randn(400, 3, 6, generator=torch.Generator().manual_seed(0))
    kept = [0, 2, 5]
    found = start([(teacher[..., kept], teacher)])
    torch.testing.assert_close(found, torch.eye(6)[:, kept], atol=0.15, rtol=0)


def test_orthogonal_projections_stay_orthogonal() -> None:
    projection = Orthogonal(torch.eye(6)[:, :4])
    optimizer = torch.optim.SGD(projection.parameters(), 0.5)
    x, goal = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)), torch.rand(2, 8, 6)
    for _ in range(5):
        optimizer.zero_grad()
        (projection(x) - goal).square().mean().backward()
        optimizer.step()
    weight = projection.weight.detach()
    torch.testing.assert_close(weight.T @ weight, torch.eye(4), atol=1e-5, rtol=0)
    assert not torch.allclose(weight, torch.eye(6)[:, :4], atol=1e-3)


def test_attention_maps_are_those_of_the_network() -> None:
    """The map times the values is what the attention returns, padding and all."""
    teacher = program("bert")
    pair = Pair(teacher, teacher, 1)
    node = attentions(teacher)[pair.attentions[0]]
    watched = {**pair.watched(attention=True, relation=False)[0], "value": node.all_input_nodes[2], "out": node}
    inputs = list(teacher.example_inputs(2))
    inputs[1] = torch.ones_like(inputs[1])
    inputs[1][1, 5:] = 0
    found = plain(teacher, [], watched)(*inputs)
    attended = pair.map(found, pair.attentions[0], teacher=False) @ found["value"]
    torch.testing.assert_close(attended, found["out"], atol=1e-5, rtol=1e-4)


def test_padding_is_known_from_the_teacher() -> None:
    teacher = program("bert")
    pair = Pair(teacher, teacher, 1)
    inputs = list(teacher.example_inputs(2))
    inputs[1] = torch.ones_like(inputs[1])
    inputs[1][1, 5:] = 0
    goal = reference(pair, Weights())(*inputs)
    seen = valid(goal, inputs[0].shape[1])
    assert seen is not None and torch.equal(seen, inputs[1] > 0)


def test_a_guided_student_computes_what_it_did(tmp_path: Path) -> None:
    teacher = program("packed_chunk")
    pair = Pair(sliced(teacher, 1), teacher, 2)
    module = student(pair, samples(teacher), Weights())
    inputs = teacher.example_inputs(3)
    found = module(*inputs)
    torch.testing.assert_close(next(iter(found.values())), pair.student(*inputs))
    assert set(module.own(module.state_dict())) == set(pair.student.state)
    assert all(found[HIDDEN + s.name].shape == (3, 12, 32) for s in pair.streams)


def test_rows_put_channels_last() -> None:
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(rows(x, 1), x.permute(0, 2, 3, 1).reshape(2, 20, 3))
    assert rows(torch.rand(2, 7), 1).shape == (2, 1, 7)


def test_one_projection_may_serve_several_streams() -> None:
    teacher = program("packed_chunk")
    all_, _ = streams(teacher, teacher)
    one = Linear(torch.eye(32))
    module = Guided.of(teacher, all_, {s.name: one for s in all_})
    assert list(module.projections) == [one]
