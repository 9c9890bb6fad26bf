"""Live modules: exported faithfully, left as they were, refused with the reason."""

import pytest
import torch
from torch import Tensor, nn

from compactor.errors import ExitCode, InputError, UnsupportedError
from compactor.frontend import export
from compactor.ir.program import DynamicDim
from tests.frontend.planted import small


class _TwoInputs(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": left + right, "product": left * right}


class _FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4)


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class _Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.Dropout().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.norm(x))  # type: ignore[no-any-return]


def test_modes_and_weights_of_the_module_are_left_alone() -> None:
    module = _Normed()
    before = module.norm.running_mean.clone()
    program = export(module, torch.randn(4, 4))
    assert module.training
    assert module.norm.training
    assert not module.frozen.training
    torch.testing.assert_close(module.norm.running_mean, before)
    fingerprint = program.fingerprint
    with torch.no_grad():
        module.norm.weight.fill_(7)
    assert float(program.state["norm.weight"][0]) == 1
    assert program.evolve().fingerprint == fingerprint


def test_example_of_one_sample_gives_a_free_batch() -> None:
    program = export(small(), torch.zeros(1, 4))
    assert program.inputs[0].dynamic == {0: DynamicDim("batch", 1, 4096)}
    for batch in (1, 2, 7):
        assert program(torch.zeros(batch, 4)).shape == (batch, 3)


def test_inputs_by_name_and_several_outputs() -> None:
    program = export(_TwoInputs(), {"left": torch.ones(2, 3), "right": torch.ones(2, 3)})
    assert [s.name for s in program.inputs] == ["left", "right"]
    total, product = program(torch.full((5, 3), 2.0), torch.full((5, 3), 4.0))
    assert float(total[0, 0]) == 6
    assert float(product[4, 2]) == 8


def test_free_length() -> None:
    table = nn.Embedding(10, 4)
    length = DynamicDim("sequence", 2, 16)
    program = export(table, torch.zeros(2, 8, dtype=torch.long), [{0: DynamicDim("batch"), 1: length}])
    assert program(torch.zeros(3, 5, dtype=torch.long)).shape == (3, 5, 4)
    assert program.inputs[0].dynamic[1] == length


@pytest.mark.parametrize(
    ("module", "words"), [(_FixedBatch(), "batch"), (_Branching(), "data-dependent"), (_Random(), "deterministic")]
)
def test_what_cannot_be_exported(module: nn.Module, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as raised:
        export(module, torch.ones(2, 4))
    assert raised.value.exit_code is ExitCode.UNSUPPORTED
    assert len(raised.value.message) < 500


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"does not run on example inputs \(2, 5\)"):
        export(small(), torch.zeros(2, 5))
    with pytest.raises(InputError, match="example inputs are str"):
        export(small(), ["x"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="no common batch"):
        export(_TwoInputs(), (torch.zeros(2, 3), torch.zeros(3, 3)))
    with pytest.raises(InputError, match="dynamic_dims for 2"):
        export(small(), torch.zeros(2, 4), [{}, {}])
