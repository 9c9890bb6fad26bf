"""What the search space of known architectures must contain, and what it refuses."""

import pytest

from compactor.errors import InputError
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace, space_of
from compactor.ir.subnet import Subnet
from tests import steps
from tests.models import program
from tests.strategies import Recipe

TRANSFORMERS = {"bert": 2, "bert_eager": 2, "distilbert": 2, "gpt2": 2, "llama": 2, "vit": 2, "vit_eager": 2}


def kinds(space: SearchSpace) -> set[str]:
    return {group.kind for group in space.groups}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_have_heads_ffn_hidden_and_depth(name: str) -> None:
    space = space_of(program(name))
    assert {"heads", "ffn", "hidden"} <= kinds(space)
    assert sum(group.kind == "heads" for group in space.groups) == TRANSFORMERS[name]
    assert len(space.blocks) == 2 * TRANSFORMERS[name]


@pytest.mark.parametrize(
    "name", ["resnet_a", "resnet_b", "resnet_bottleneck", "mobilenet_v2", "mobilenet_v3", "convnext"]
)
def test_cnns_have_channels_and_blocks(name: str) -> None:
    space = space_of(program(name))
    assert "channels" in kinds(space)
    assert space.blocks


def test_grouped_queries_move_with_their_key_head() -> None:
    space = space_of(program("llama"))
    heads = next(g for g in space.groups if g.kind == "heads")
    rows = {tensor.split(".")[-2]: count for tensor, _, count in heads.members}
    assert heads.size == 2
    assert rows["q_proj"] == 2 * rows["k_proj"] == 2 * rows["v_proj"] == rows["o_proj"]


def test_no_choice_empties_a_piece_of_a_split() -> None:
    parts = (steps.ChannelsLast(8), steps.Split((steps.Pool("max"),), "chunk", swapped=True))
    model = Recipe("image", 4, parts, "mean").program()
    for seed in range(20):
        slice_program(model, SearchSpace(model).sample(seed, keep=(0.1, 0.4)))


def test_tied_weights_stay_one_tensor() -> None:
    teacher = program("tied_lm")
    student = slice_program(teacher, space_of(teacher).sample(0, keep=0.5))
    tables = [t for t in student.state.values() if t.dim() == 2 and t.shape[0] == 50]
    assert len(tables) == 1


def test_every_pinned_axis_has_a_reason(architecture: str) -> None:
    assert all(pin.reason for pin in space_of(program(architecture)).pinned)


def test_subnets_round_trip_and_hash() -> None:
    space = space_of(program("bert"))
    subnet = space.sample(5)
    assert Subnet.from_dict(subnet.to_dict()) == subnet
    assert hash(Subnet.from_dict(subnet.to_dict())) == hash(subnet)
    assert space.sample(5) == subnet


@pytest.mark.parametrize("units", [[], [-1], [10_000]])
def test_impossible_choices_are_refused(units: list[int]) -> None:
    space = space_of(program("bert"))
    with pytest.raises(InputError, match="cannot keep"):
        space.choose({space.groups[0].name: units})


def test_unknown_names_are_refused() -> None:
    space = space_of(program("bert"))
    with pytest.raises(InputError, match="no group"):
        space.choose({"nothing": [0]})
    with pytest.raises(InputError, match="no block"):
        space.choose({}, ["nothing"])


def test_a_subnet_of_another_program_is_refused() -> None:
    foreign = space_of(program("vit")).sample(0)
    with pytest.raises(InputError, match="another search space"):
        slice_program(program("bert"), foreign)


def test_what_is_no_subnet_is_refused() -> None:
    with pytest.raises(InputError, match="not a subnet"):
        Subnet.from_dict({"kept": 3})
