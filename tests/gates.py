"""Keep-probabilities for tests: those of a subnet, or random ones."""

import torch
from torch import Tensor

from compactor.ir.space import SearchSpace
from compactor.ir.subnet import Subnet

Gates = tuple[dict[str, Tensor], dict[str, Tensor]]


def hard(space: SearchSpace, subnet: Subnet) -> Gates:
    """1 for what the subnet keeps, 0 for what it does not; whole groups are left out."""
    units = {}
    for name, kept in subnet.kept:
        units[name] = torch.zeros(next(g.size for g in space.groups if g.name == name))
        units[name][list(kept)] = 1
    return units, {b.name: torch.tensor(float(b.name not in subnet.dropped)) for b in space.blocks}


def soft(space: SearchSpace, seed: int, least: float = 0.0) -> Gates:
    """Random probabilities from ``least`` to 1, float64, that take gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
        return (least + (1 - least) * drawn).requires_grad_()

    return {g.name: draw(g.size) for g in space.groups}, {b.name: draw() for b in space.blocks}
