"""Why an axis is where it is: chains of real ties, reasons of real pins."""

import pytest
import torch
from torch import Tensor, nn

from compactor.errors import InputError
from compactor.ir.explain import parse, why
from compactor.ir.space import space_of
from tests.models import program
from tests.passes.support import traced


class Residual(nn.Module):
    """A sum between two layers; the last one makes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        result: Tensor = self.last(x + self.second(x))
        return result


def test_a_tie_is_explained_by_the_ops_on_the_way() -> None:
    space = space_of(traced(Residual(), 2, 5))
    (reason,) = why(space, "function.first.weight", 0)
    assert reason.indices == 8 and reason.group is not None and reason.group.kind == "hidden"
    chains = {chain[-1].axis: [step.op for step in chain] for chain in reason.chains}
    assert chains["function.second.weight:0"] == ["add"] and chains["function.last.weight:1"] == ["linear"]
    assert set(chains) == {f"{t}:{d}" for t, d, _ in reason.group.members} - {"function.first.weight:0"}


def test_a_pin_is_explained_by_its_op() -> None:
    space = space_of(traced(Residual(), 2, 5))
    (reason,) = why(space, "function.last.weight", 0)
    assert reason.group is None and "output" in reason.because and reason.chains[0][-1].op == "linear"
    (reason,) = why(space, "function.first.weight", 1)
    assert reason.group is None and reason.chains[0][-1].op == "linear"


def test_every_axis_of_every_architecture_has_a_reason(architecture: str) -> None:
    space = space_of(program(architecture))
    for tensor, dim, ids in space.axes[::7]:
        reasons = why(space, tensor, dim)
        assert sum(r.indices for r in reasons) == ids.size
        assert all(r.group is not None or r.because for r in reasons)


def test_names_that_are_no_axes() -> None:
    space = space_of(traced(Residual(), 2, 5))
    assert parse(space, "function.first.weight") == [("function.first.weight", 0), ("function.first.weight", 1)]
    assert parse(space, "function.first.weight:1") == [("function.first.weight", 1)]
    with pytest.raises(InputError, match="no weight 'function"):
        why(space, "function.frist.weight", 0)
    with pytest.raises(InputError, match="axis 7"):
        why(space, "function.first.weight", 7)
    with pytest.raises(InputError, match="names no axis"):
        parse(space, "function.first.weight:x")


def test_an_unknown_op_names_itself_and_the_home_of_its_rule() -> None:
    class Unruled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(torch.special.bessel_j0(self.first(x)))
            return result

    space = space_of(traced(Unruled(), 2, 5))
    (reason,) = why(space, "function.first.weight", 0)
    assert reason.because == "no rule for the op special_bessel_j0; it would live in compactor/ir/rules/pointwise.py"
