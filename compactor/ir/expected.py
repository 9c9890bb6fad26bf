"""The kernels of a search space in expectation: differentiable in what is kept, for passes that learn it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compactor.errors import InputError
from compactor.ir.blocks import live_nodes
from compactor.ir.kernels import EPILOGUES
from compactor.ir.presence import Presence, padded

if TYPE_CHECKING:
    from compactor.ir.space import SearchSpace

_COLUMNS = 6
"""Where the columns stand in a row of the plan's table."""


@dataclass(frozen=True)
class ExpectedKernels:
    """Kernels of which only expected sizes are known: all tensors are float64, on the CPU, one entry per kernel.

    Attributes:
        kinds: as in `compactor.ir.kernels.Kernel`.
        keep: the probability that the kernel is there.
        spread: the standard deviation of ``columns``, without gradients.
        macs, inputs, weights, outputs, groups, rows, columns, depth: at the expected numbers of kept units.
        fused: the same, one column for each of `compactor.ir.kernels.EPILOGUES`.
    """

    kinds: tuple[str, ...]
    keep: Tensor
    spread: Tensor
    macs: Tensor
    inputs: Tensor
    weights: Tensor
    outputs: Tensor
    groups: Tensor
    rows: Tensor
    columns: Tensor
    depth: Tensor
    fused: Tensor


class Expectation:
    """Maps keep-probabilities to expected kernels. Made once per space, called in every step of training::

        expectation = Expectation(space)
        latency = target.expected(expectation.kernels(units, blocks), "int8")  # ms; then latency.backward()

    Probabilities may be on any device, what comes out is on the CPU. At 0 and 1 the kernels are those of the subnet, as
    long as it fuses like the whole graph (see `compactor.ir.plans`). In between, sizes are taken at expected numbers of
    kept units: the expectation of a product counts as the product of the expectations.
    """

    def __init__(self, space: "SearchSpace") -> None:
        self._plan = space.plan
        self._units = {g.name: (g.size,) for g in space.groups}
        self._blocks: dict[str, tuple[int, ...]] = {b.name: () for b in space.blocks}

        @cache
        def live(dropped: frozenset[str]) -> set[str]:
            subnet = space.choose({}, sorted(dropped))
            return {n.name for n in live_nodes(space.program.graph, space.replaced(subnet))}

        def presence(nodes: Sequence[str]) -> Presence:
            def left(dropped: frozenset[str]) -> frozenset[int]:
                return frozenset(i for i, node in enumerate(nodes) if node in live(dropped))

            return Presence(left, list(self._blocks), len(nodes))

        tensors = [n for n in space.program.graph.nodes if n.op == "get_attr"]
        self._presence = presence([node for _, node in self._plan.names])
        self._held = presence([n.name for n in tensors])
        shapes = [self._plan.sizes.shapes[n] for n in tensors]
        widths = [space.program.state[str(n.target)].element_size() for n in tensors]
        fixed = [math.prod(n for n, variable in shape if variable is None) for shape in shapes]
        self._bytes = torch.tensor([w * n for w, n in zip(widths, fixed, strict=True)], dtype=torch.float64)
        self._variables = [[v for _, v in shape if v is not None] for shape in shapes]

    def kernels(self, units: Mapping[str, Tensor], blocks: Mapping[str, Tensor]) -> ExpectedKernels:
        """The kernels at these probabilities of being kept.

        Args:
            units: by group, one for each of its units, shape (size,); groups that are not named are kept whole.
            blocks: by block, shape (); blocks that are not named are kept.

        Raises `InputError` for unknown names, other shapes, and values that are not from 0 to 1.
        """
        keep = _flat("group", self._units, units)
        sizes = self._plan.sizes.expected(keep)
        table = self._plan.replay.smooth(sizes)
        present = self._presence.of(_flat("block", self._blocks, blocks))
        kinds, numbers = tuple(kind for kind, _ in self._plan.names), table.shape[1] - len(EPILOGUES)
        columns = [*table[:, :numbers].unbind(1), table[:, numbers:]]
        with torch.no_grad():
            wider = self._plan.replay.smooth(sizes + self._plan.sizes.spread(keep))
            spread = wider[:, _COLUMNS] - table[:, _COLUMNS]
        return ExpectedKernels(kinds, present, spread, *columns)

    def bytes(self, units: Mapping[str, Tensor], blocks: Mapping[str, Tensor]) -> Tensor:
        """The bytes of all tensors at these probabilities, a float64 scalar; arguments and errors as in `kernels`.

        At 0 and 1 they are those of `SearchSpace.cost`.
        """
        sizes = self._plan.sizes.expected(_flat("group", self._units, units))
        factors = torch.cat([sizes, sizes.new_ones(1)])[padded(self._variables, len(sizes))].prod(1)
        return (self._held.of(_flat("block", self._blocks, blocks)) * self._bytes * factors).sum()


def _flat(what: str, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, Tensor]) -> Tensor:
    """All probabilities one after the other, 1 where none is given; checked."""
    for name, value in given.items():
        if name not in shapes:
            raise InputError(f"no {what} {name!r} in this search space", "see `compactor inspect` for the names")
        if not isinstance(value, Tensor) or tuple(value.shape) != shapes[name]:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{what} {name!r}: probabilities of {found}", f"give a tensor of shape {shapes[name]}")
    device = next((v.device for v in given.values()), None)
    pieces = [given[n] if n in given else torch.ones(shape, device=device) for n, shape in shapes.items()]
    # Joined first: one transfer and one check for all.
    flat = torch.cat([torch.ones(0, device=device), *(p.reshape(-1) for p in pieces)]).cpu().double()
    if not bool(((flat >= 0) & (flat <= 1)).all()):
        name, bad = next((n, v) for n, v in given.items() if not bool(((v >= 0) & (v <= 1)).all()))
        wrong = bad[~((bad >= 0) & (bad <= 1))].flatten()[0].item()
        raise InputError(f"{what} {name!r}: {wrong} is no probability", "give numbers from 0 to 1")
    return flat
