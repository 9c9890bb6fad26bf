"""`Supernet`: one set of weights shared by many subnets, each of which runs on its own, smaller graph."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.ir.subnet import Subnet
from compactor.training.taps import tapped

if TYPE_CHECKING:
    from compactor.ir.space import Alive

Cut = tuple[tuple[int, int | Tensor], ...]
"""Per dimension that loses something: how many leading indices are kept, or which."""


class Supernet(nn.Module):
    """The weights of the largest subnet; any subnet within it runs on views of them, at its own cost.

    Gradients of a subnet reach the shared weights it uses. Batch norms use batch statistics, dropout is off.
    """

    def __init__(self, program: Program, largest: Subnet) -> None:
        super().__init__()
        self.program, self.largest = program, largest
        self.shared = slice_program(program, largest).module()
        self._kept = space_of(program).kept_weights(largest)
        self._ready: dict[Subnet, tuple[fx.GraphModule, tuple[str, ...], dict[str, Cut]]] = {}

    def forward(self, subnet: Subnet, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of a subnet by name, with those that `tapped` adds.

        Raises `InputError` when it is not within the largest.
        """
        module, names, cuts = self._prepared(subnet)
        outputs = functional_call(module, _views(self._weights(), cuts), inputs)
        return dict(zip(names, outputs, strict=True))

    def student(self, subnet: Subnet) -> Program:
        """The subnet as a Program, with its share of the weights."""
        sliced = slice_program(self.program, subnet)
        views = _views(self._weights(), self._cuts(subnet, sliced))
        return sliced.with_state({name: view.detach().contiguous() for name, view in views.items()})

    def _weights(self) -> dict[str, Tensor]:
        named = self.shared.named_parameters(remove_duplicate=False), self.shared.named_buffers(remove_duplicate=False)
        return {name: value for part in named for name, value in part}

    def _prepared(self, subnet: Subnet) -> tuple[fx.GraphModule, tuple[str, ...], dict[str, Cut]]:
        if subnet not in self._ready:
            sliced = slice_program(self.program, subnet)
            empty = {name: value.to("meta") for name, value in sliced.state.items()}
            graph = tapped(sliced).evolve(state=empty)
            module = graph.module(train=True, dropout=False)
            self._ready[subnet] = module, graph.outputs, self._cuts(subnet, sliced)
        return self._ready[subnet]

    def _cuts(self, subnet: Subnet, sliced: Program) -> dict[str, Cut]:
        kept = space_of(self.program).kept_weights(subnet)
        missing = [name for name in sliced.state if name not in self.shared.state_dict()]
        if missing:
            raise InputError(f"the subnet keeps {missing[0]!r}, the super-network does not", "choose one within it")
        return {name: _cut(kept[name], self._kept[name], name) for name in sliced.state}


def _cut(kept: Sequence["Alive | None"], whole: Sequence["Alive | None"], name: str) -> Cut:
    """What ``kept`` takes of what ``whole`` keeps. Raises `InputError` when it takes more."""
    found: list[tuple[int, int | Tensor]] = []
    for dim, (ours, theirs) in enumerate(zip(kept, whole, strict=True)):
        if ours is None or theirs is None:
            continue
        if (ours & ~theirs).any():
            raise InputError(f"the subnet keeps more of {name!r} than the super-network", "choose one within it")
        within = ours[theirs]
        count = int(within.sum())
        if count < len(within):
            found.append((dim, count if within[:count].all() else torch.from_numpy(within.nonzero()[0])))
    return tuple(found)


def _views(weights: Mapping[str, Tensor], cuts: Mapping[str, Cut]) -> dict[str, Tensor]:
    return {name: _view(weights[name], cut) for name, cut in cuts.items()}


def _view(tensor: Tensor, cut: Cut) -> Tensor:
    for dim, kept in cut:
        if isinstance(kept, int):
            tensor = tensor.narrow(dim, 0, kept)
        else:
            tensor = tensor.index_select(dim, kept.to(tensor.device))
    return tensor
