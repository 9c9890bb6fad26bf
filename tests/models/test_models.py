"""Every architecture exports, computes what the eager module computes, and survives the round trip to disk."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from compactor.ir.archive import load
from compactor.ir.program import Program
from tests.models import ARCHITECTURES, DYNAMIC_LENGTH, example, program


def outputs(program: Program, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    result = program(*inputs)
    return result if isinstance(result, tuple) else (result,)


def eager(name: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = example(name)[0](*inputs)
    return result if isinstance(result, tuple) else (result,)


def test_program_computes_what_the_module_computes(architecture: str) -> None:
    inputs = example(architecture)[1]
    torch.testing.assert_close(outputs(program(architecture), inputs), eager(architecture, inputs))


@pytest.mark.parametrize("batch", [1, 3])
def test_batch_is_dynamic(architecture: str, batch: int) -> None:
    inputs = program(architecture).example_inputs(batch)
    torch.testing.assert_close(outputs(program(architecture), inputs), eager(architecture, inputs))


@pytest.mark.parametrize("name", sorted(DYNAMIC_LENGTH))
@pytest.mark.parametrize("length", [5, 30])
def test_length_is_dynamic(name: str, length: int) -> None:
    inputs = tuple(x.repeat(1, 2)[:, :length] for x in example(name)[1])
    torch.testing.assert_close(outputs(program(name), inputs), eager(name, inputs))


def test_saved_program_is_the_same(architecture: str, tmp_path: Path) -> None:
    before = program(architecture)
    before.save(tmp_path / "model.pt2")
    after = load(tmp_path / "model.pt2")
    assert after.fingerprint == before.fingerprint
    assert after.inputs == before.inputs
    inputs = example(architecture)[1]
    torch.testing.assert_close(outputs(after, inputs), outputs(before, inputs), rtol=0, atol=0)


def test_nothing_is_at_its_initial_value(architecture: str) -> None:
    module, _ = example(architecture)
    for name, parameter in module.named_parameters():
        assert parameter.std() > 0.01, name
    for norm in (m for m in module.modules() if isinstance(m, _BatchNorm)):
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.running_mean.abs().min() > 0 and norm.running_var.min() > 0
        assert norm.running_var.std() > 0


@pytest.mark.parametrize("name", ["resnet_a", "bert"])
def test_same_seed_same_weights(name: str) -> None:
    again, inputs = ARCHITECTURES[name]()
    torch.testing.assert_close(again.state_dict(), example(name)[0].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(inputs, example(name)[1], rtol=0, atol=0)
