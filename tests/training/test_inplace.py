"""ReLUs in place change no number."""

import torch

from compactor.ir.graphs import aten
from compactor.training.inplace import relus_in_place
from tests.training.samples import network, program


def test_same_outputs_and_gradients() -> None:
    made, images = program(network(4)), torch.rand(8, 1, 8, 8)
    plain, lean = made.module(train=True), made.module(train=True)
    relus_in_place(lean)
    assert sum(n.target is aten.relu_.default for n in lean.graph.nodes) == 2
    for module in (plain, lean):
        module(images)[0].square().sum().backward()
    for (name, first), (_, second) in zip(plain.named_parameters(), lean.named_parameters(), strict=True):
        assert torch.equal(first.grad, second.grad), name


class Shared(torch.nn.Module):
    """The ReLU's input is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return y + y.relu()


def test_an_input_that_is_read_again_is_left_alone() -> None:
    module = program(Shared(), 4).module(train=True)
    relus_in_place(module)
    assert not any(n.target is aten.relu_.default for n in module.graph.nodes)
