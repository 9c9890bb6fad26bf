"""Hard-concrete gates: how likely each unit and block is kept, learned by gradient (Louizos et al., ICLR 2018)."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx, nn

from compactor.ir.gating import Gated
from compactor.ir.program import Program
from compactor.ir.space import SearchSpace

BETA, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Temperature and stretch of CoFi (ACL 2022), section 3.1."""

_SHIFT = BETA * math.log(-LOW / HIGH)
_SCALE = 0.8
"""Of log alpha, for the value of a gate that stays (CoFi's released code)."""
_SPREAD = 0.01

Keep = tuple[dict[str, Tensor], dict[str, Tensor]]
"""One number per unit of each group, (size,), and one per block, ()."""
Shown = Sequence[tuple[fx.Node, int]]
"""Nodes that are further outputs, and the dimension whose gates they are under."""


class HardConcrete(nn.Module):
    """Gates of some groups and blocks of a space: one log alpha each, in one vector."""

    def __init__(
        self, space: SearchSpace, groups: Iterable[str], blocks: Iterable[str], start: float, seed: int
    ) -> None:
        super().__init__()
        wanted = set(groups)
        self._sizes = {g.name: g.size for g in space.groups if g.name in wanted}
        self._blocks = list(blocks)
        count = sum(self._sizes.values()) + len(self._blocks)
        noise = torch.randn(count, generator=torch.Generator().manual_seed(seed))
        self.log_alpha = nn.Parameter(start + _SPREAD * noise)

    def sample(self) -> Keep:
        """Random gates from 0 to 1, by the global generator."""
        uniform = torch.rand_like(self.log_alpha).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((uniform.logit() + self.log_alpha) / BETA)
        return self.split((soft * (HIGH - LOW) + LOW).clamp(0, 1))

    def odds(self) -> Keep:
        """Log-odds of not being zero."""
        return self.split(self.log_alpha - _SHIFT)

    def probabilities(self) -> Keep:
        """Probabilities of not being zero."""
        return self.split(torch.sigmoid(self.log_alpha - _SHIFT))

    def values(self) -> dict[str, Tensor]:
        """The gates of units that stay, without noise."""
        return self.split(torch.sigmoid(_SCALE * self.log_alpha / BETA))[0]

    def split(self, flat: Tensor) -> Keep:
        """A number per gate by group and block."""
        pieces = torch.split(flat, [*self._sizes.values(), len(self._blocks)])
        return dict(zip(self._sizes, pieces, strict=False)), dict(zip(self._blocks, pieces[-1].unbind(), strict=True))


class GatedStudent(nn.Module):
    """A Program under random gates, with the multipliers of the Lagrangian; takes the Program's inputs."""

    def __init__(self, gated: Gated, gates: HardConcrete) -> None:
        super().__init__()
        self.gated, self.gates = gated, gates
        self.multipliers = nn.Parameter(torch.zeros(2))

    @staticmethod
    def of(
        program: Program,
        space: SearchSpace,
        groups: Sequence[str],
        blocks: Sequence[str],
        *,
        start: float,
        dropout: bool,
        seed: int,
        shown: Shown = (),
    ) -> "GatedStudent":
        """Gates on these groups and blocks; ``shown``: further outputs, as in `Gated`."""
        gated = Gated(program, space, groups, blocks, train=True, dropout=dropout, shown=shown)
        return GatedStudent(gated, HardConcrete(space, groups, blocks, start, seed))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs at gates drawn anew."""
        outputs: tuple[Tensor, ...] = self.gated(inputs, *self.gates.sample())
        return outputs
