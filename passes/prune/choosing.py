"""From how likely each unit and block is kept to the subnet that uses a limit up."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from compactor.ir.space import AxisGroup, SearchSpace
from compactor.ir.subnet import Subnet
from compactor.passes.search.ladder import count

_FAR, _BISECTIONS = 64.0, 48


class Chooser:
    """Subnets of a space by log-odds of being kept: of every unit of ``groups``, and of every block that may go.

    A group keeps its expected number of units, rounded to widths that are multiples of ``multiple`` where it is long
    enough and not less than ``smallest`` of it: those with the best odds. Blocks stay at odds above one.
    """

    def __init__(
        self,
        space: SearchSpace,
        groups: Sequence[AxisGroup],
        units: Mapping[str, Tensor],
        blocks: Mapping[str, Tensor],
        *,
        smallest: float,
        multiple: int,
    ) -> None:
        self._space, self._groups = space, groups
        self._multiple, self._smallest = multiple, smallest
        self._units = {g.name: units[g.name].detach().double().cpu() for g in groups}
        self._orders = {n: v.argsort(descending=True, stable=True).tolist() for n, v in self._units.items()}
        self._blocks = {name: float(v) for name, v in blocks.items()}

    def at(self, shift: float) -> Subnet:
        """The subnet with this much added to all log-odds."""
        kept = {g.name: self._count(g, torch.sigmoid(self._units[g.name] + shift)) for g in self._groups}
        return self._subnet(kept, {name for name, odds in self._blocks.items() if odds + shift <= 0})

    @property
    def least(self) -> Subnet:
        """The smallest subnet."""
        return self.at(-math.inf)

    def largest(self, cost: Callable[[Subnet], float], limit: float) -> Subnet:
        """The largest subnet within the limit: the shift is bisected, then groups and blocks grow one by one.

        `least` when none fits.
        """
        cost, low, high, best = cache(cost), -_FAR, _FAR, self.least
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            subnet = self.at(middle)
            if cost(subnet) <= limit:
                low, best = middle, subnet
            else:
                high = middle
        return self._grown(best, cost, limit)

    def _grown(self, subnet: Subnet, cost: Callable[[Subnet], float], limit: float) -> Subnet:
        fitted = True
        while fitted:
            larger = [s for _, s in sorted(self._larger(subnet), key=lambda pair: -pair[0])]
            fitting = next((s for s in larger if cost(s) <= limit), None)
            fitted, subnet = fitting is not None, fitting or subnet
        return subnet

    def _larger(self, subnet: Subnet) -> Iterator[tuple[float, Subnet]]:
        """Subnets with one block more, or one group at its next width, and the odds of what they gain."""
        sizes = {g.name: g.size for g in self._groups} | {name: len(units) for name, units in subnet.kept}
        dropped = set(subnet.dropped)
        for name in dropped:
            yield self._blocks[name], self._subnet(sizes, dropped - {name})
        for group in self._groups:
            now = sizes[group.name]
            if now < group.size:
                step = self._multiple if group.size >= 2 * self._multiple else 1
                then = min(group.size, (now // step + 1) * step)
                odds = float(self._units[group.name][self._orders[group.name][now]])
                yield odds, self._subnet({**sizes, group.name: then}, dropped)

    def _count(self, group: AxisGroup, probabilities: Tensor) -> int:
        share = float(probabilities.sum()) / group.size
        return count(group, max(share, self._smallest), self._multiple)

    def _subnet(self, sizes: Mapping[str, int], dropped: set[str]) -> Subnet:
        kept = {name: order[: sizes[name]] for name, order in self._orders.items()}
        return self._space.choose(kept, sorted(dropped))


def uniform(
    space: SearchSpace, groups: Sequence[AxisGroup], depth: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Even odds for everything."""
    blocks = {b.name: torch.zeros(()) for b in space.blocks} if depth else {}
    return {g.name: torch.zeros(g.size) for g in groups}, blocks
