"""What relation losses see of a network."""

import pytest
import torch

from compactor.training import taps
from tests.models import program
from tests.passes.support import traced


def outputs(name: str) -> dict[str, torch.Tensor]:
    tapped = taps.tapped(program(name))
    found = tapped(*program(name).example_inputs(2))
    return dict(zip(tapped.outputs, found, strict=True))


@pytest.mark.parametrize("name", ["bert", "vit", "gpt2", "llama"])
def test_of_attention_the_last_queries_keys_and_values(name: str) -> None:
    found = outputs(name)
    assert all(found[tap].dim() == 4 and found[tap].shape[0] == 2 for tap in taps.ATTENTION)
    assert taps.FEATURES not in found


@pytest.mark.parametrize("name", ["resnet_a", "mobilenet_v2", "convnext", "densenet"])
def test_of_convolutions_the_last_map(name: str) -> None:
    found = outputs(name)[taps.FEATURES]
    assert found.dim() == 4 and found.shape[0] == 2 and found[0, 0].numel() > 1


def test_of_matrices_what_the_last_reads() -> None:
    weight = torch.rand(3, 5)
    model = traced(lambda x: torch.nn.functional.linear(x.relu(), weight), 2, 5)
    tapped = taps.tapped(model)
    x = torch.randn(2, 5)
    assert torch.equal(tapped(x)[1], x.relu()) and tapped.outputs[1:] == (taps.FEATURES,)


def test_the_first_outputs_stay() -> None:
    model = program("bert")
    inputs = model.example_inputs(2)
    assert torch.equal(taps.tapped(model)(*inputs)[0], model(*inputs))


@pytest.mark.parametrize("kind", ["boolean", "additive", "causal"])
def test_padding_is_read_from_the_mask(kind: str) -> None:
    valid = torch.tensor([[True, True, True], [True, False, False]])
    mask = valid[:, None, None, :]
    if kind == "additive":
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    if kind == "causal":
        mask, valid = torch.ones(3, 3).tril().bool(), torch.ones(1, 3).bool()
    assert torch.equal(taps.visible(mask), valid)
