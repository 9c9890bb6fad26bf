"""From an exported program to a Program: nothing that the module computes may get lost."""

import torch
from torch import Tensor, nn

from compactor.ir.exported import from_exported


class WritesThroughAView(nn.Module):
    """Changes its activations in place through a view whose result nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        y.view(-1).mul_(3)
        return y


def test_writes_through_a_view_are_kept() -> None:
    module, x = WritesThroughAView().eval(), torch.randn(3, 6)
    program = from_exported(torch.export.export(module, (x,)))
    assert torch.allclose(program(x), module(x))  # type: ignore[arg-type]
