"""Hard-concrete gates, the Lagrangian's multipliers, and the subnet that is chosen from odds."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compactor.ir.space import SearchSpace, space_of
from compactor.passes.prune.choosing import Chooser
from compactor.passes.prune.gates import BETA, HIGH, LOW, HardConcrete
from compactor.passes.prune.lagrangian import Pruning
from compactor.training.engine import Micro
from tests.models import program

SPACE = space_of(program("mobilenet_v2"))


def gates(start: float = 0.0) -> HardConcrete:
    return HardConcrete(SPACE, [g.name for g in SPACE.groups], [b.name for b in SPACE.blocks], start, seed=0)


@pytest.mark.parametrize("start", [-2.0, 0.0, 3.0])
def test_probabilities_are_frequencies(start: float) -> None:
    made, drawn = gates(start), []
    torch.manual_seed(0)
    for _ in range(200):
        units, blocks = made.sample()
        drawn.append(torch.cat([*units.values(), torch.stack([*blocks.values()])]))
    values = torch.stack(drawn)
    assert values.min() >= 0 and values.max() <= 1
    wanted = 1 / (1 + math.exp(-(start - BETA * math.log(-LOW / HIGH))))
    assert float((values > 0).float().mean()) == pytest.approx(wanted, abs=0.02)
    probabilities = torch.cat([*made.probabilities()[0].values()])
    assert probabilities.mean().item() == pytest.approx(wanted, abs=0.01)


def test_multipliers_ascend() -> None:
    """A gradient step down the penalty raises the first multiplier where the cost is above the target."""
    made: Any = SimpleNamespace(gates=gates(), multipliers=torch.nn.Parameter(torch.tensor([0.5, 0.25])))

    def expected(units: dict[str, Tensor], blocks: object) -> Tensor:
        return torch.stack([v.double().mean() for v in units.values()]).sum()

    constraint: Any = SimpleNamespace(whole=10.0, limit=5.0, expected=expected)
    pruning = Pruning(made, None, constraint, ramp=0.5, one_sided=False)  # type: ignore[arg-type]
    cost = constraint.expected(*made.gates.probabilities()).item() / 10
    penalty = pruning.penalty(cost - 0.2)
    assert penalty.item() == pytest.approx(0.5 * 0.2 + 0.25 * 0.04, rel=1e-5)
    penalty.backward()
    assert made.multipliers.grad.tolist() == pytest.approx([-0.2, -0.04], rel=1e-4)
    assert made.gates.log_alpha.grad.max() > 0, "gates close"
    pruning.one_sided = True
    assert pruning.penalty(cost + 0.1).item() == 0


def test_the_target_falls_linearly_and_stays() -> None:
    constraint: Any = SimpleNamespace(whole=10.0, limit=5.0)
    pruning = Pruning(None, None, constraint, ramp=0.5, one_sided=False)  # type: ignore[arg-type]
    found = [pruning.target(Micro(torch.arange(1), step, 0, 8, 0)) for step in range(8)]
    assert found == pytest.approx([0.875, 0.75, 0.625, 0.5, 0.5, 0.5, 0.5, 0.5])


def chooser(space: SearchSpace, seed: int, multiple: int) -> Chooser:
    random = torch.Generator().manual_seed(seed)
    units = {g.name: 3 * torch.randn(g.size, generator=random) for g in space.groups}
    blocks = {b.name: 3 * torch.randn((), generator=random) for b in space.blocks}
    return Chooser(space, space.groups, units, blocks, smallest=0.1, multiple=multiple)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 99), share=st.floats(0.3, 0.95), multiple=st.sampled_from([1, 2, 8]))
def test_the_largest_subnet_fits_and_nothing_more_does(seed: int, share: float, multiple: int) -> None:
    def macs(subnet: Any) -> float:
        return float(SPACE.cost(subnet).macs)

    made, limit = chooser(SPACE, seed, multiple), share * macs(SPACE.full())
    found = made.largest(macs, limit)
    if macs(made.least) > limit:
        assert found == made.least
        return
    assert macs(found) <= limit
    assert all(macs(larger) > limit for _, larger in made._larger(found))
    for name, units in found.kept:
        size = next(g.size for g in SPACE.groups if g.name == name)
        assert len(units) % multiple == 0 or size < 2 * multiple


def test_the_best_units_stay() -> None:
    group = SPACE.groups[0]
    odds = {g.name: torch.full((g.size,), 9.0) for g in SPACE.groups} | {group.name: torch.arange(group.size) - 2.5}
    made = Chooser(SPACE, SPACE.groups, odds, {}, smallest=0.1, multiple=1)
    kept = dict(made.at(0.0).kept)
    assert kept == {group.name: tuple(range(group.size - len(kept[group.name]), group.size))}
