"""Archives with a fixed batch: freed where that is proven right, else refused with the call to use."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compactor.frontend as frontend
from compactor.errors import InputError


class _Flattening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        return self.head(y.view(y.shape[0], -1))  # type: ignore[no-any-return]


class _Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class _Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(2, 3, 8, 8)


def _saved(module: nn.Module, batch: int, folder: Path) -> Path:
    path = folder / "fixed.pt2"
    torch.export.save(torch.export.export(module.eval(), (torch.rand(batch, 3, 8, 8),)), path)
    return path


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_fixed_batch_is_freed(batch: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = _Flattening()
    program = frontend.load(_saved(module, batch, tmp_path))
    assert program.inputs[0].dynamic[0].name == "batch"
    x = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(program(x), module(x).detach())


@pytest.mark.parametrize(("module", "batch"), [(_Mixing(), 1), (_Mixing(), 2), (_Fixed(), 2)])
def test_models_that_need_their_batch_are_refused(module: nn.Module, batch: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"fixed batch of {batch}") as raised:
        frontend.load(_saved(module, batch, tmp_path))
    assert "dynamic_shapes" in raised.value.remedy
