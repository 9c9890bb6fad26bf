"""How much units and blocks matter, as log-odds of being kept, without training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from compactor import scoring
from compactor.ir import graphs
from compactor.ir.gating import Gated, summed_weights
from compactor.ir.graphs import op_name
from compactor.ir.program import Program
from compactor.ir.space import AxisGroup, SearchSpace
from compactor.passes.prune.constraint import Constraint
from compactor.passes.search.importance import block_damage, unit_magnitude
from compactor.training.cache import Teacher
from compactor.training.schedule import generator

Importance = Literal["magnitude", "taylor", "activation"]
Odds = tuple[dict[str, Tensor], dict[str, Tensor]]

_LAST = 2.0
"""Log-odds that blocks have over units where their scores cannot be compared: without training, they go last."""
_TOGETHER = 4
_TINY = 1e-12


def magnitude(
    program: Program, space: SearchSpace, groups: Sequence[AxisGroup], blocks: Sequence[str], inputs: Sequence[Tensor]
) -> Odds:
    """Units by the size of their weights against others of their group, blocks by the damage of removing one alone."""
    units = {g.name: _relative(unit_magnitude(program, space, g)) for g in groups}
    return units, _by_damage(program, space, blocks, inputs)


def activation(
    program: Program, space: SearchSpace, groups: Sequence[AxisGroup], blocks: Sequence[str], inputs: Sequence[Tensor]
) -> Odds:
    """Units by what they bring to the sums that read them: norm of the weights times that of the inputs.

    Wanda (Sun et al., ICLR 2024, section 3) by structure. Groups that no weight reads are ranked by magnitude.
    """
    scores = {g.name: torch.zeros(g.size) for g in groups}
    places = [(g.name, _positions(space, g)) for g in groups]
    for labels, square in _contributions(program, space, inputs):
        for name, position in places:
            found = position[labels]
            inside = found >= 0
            if bool(inside.any()):
                sums = torch.zeros_like(scores[name]).index_add_(0, found[inside], square[inside])
                scores[name] += sums / sums.mean().clamp_min(_TINY)
    plain = {g.name: unit_magnitude(program, space, g) for g in groups if not bool(scores[g.name].any())}
    units = {name: _relative(plain.get(name, score.sqrt())) for name, score in scores.items()}
    return units, _by_damage(program, space, blocks, inputs)


def taylor(
    program: Program,
    space: SearchSpace,
    groups: Sequence[AxisGroup],
    blocks: Sequence[str],
    inputs: Sequence[Tensor],
    teacher: Program,
    constraint: Constraint,
    seed: int,
) -> Odds:
    """Units and blocks by the expected rise of the distillation loss, per saved cost.

    The loss against the teacher is least at the teacher, so its first-order term says nothing there. Its second-order
    term is the Fisher information of the gates: squares of (gradient times weight) for classes drawn from the teacher
    (Molchanov et al., CVPR 2019, section 3.1, with labels replaced). No labels are needed.

    Raises `UnsupportedError` for outputs that are not class logits.
    """
    scoring.logits(program, [x[:1] for x in inputs])
    names = [g.name for g in groups]
    gated = Gated(program, space, names, blocks, train=False)
    units = {g.name: torch.ones(g.size, requires_grad=True) for g in groups}
    coarse = {name: torch.ones((), requires_grad=True) for name in blocks}
    gates = [*units.values(), *coarse.values()]
    scores = [torch.zeros_like(g) for g in gates]
    random, answers = generator(seed, 0x7A), Teacher(teacher)
    for part in zip(*(torch.split(x, _TOGETHER) for x in inputs), strict=True):
        found = gated(part, units, coarse)[0].float()
        odds = answers(part).reshape(-1, found.shape[-1]).softmax(-1)
        drawn = torch.multinomial(odds, 1, generator=random)[:, 0]
        loss = F.cross_entropy(found.reshape(len(drawn), -1), drawn, reduction="sum")
        for score, gradient in zip(scores, torch.autograd.grad(loss, gates), strict=True):
            score += gradient.square()
    gains = torch.autograd.grad(constraint.expected(units, coarse), gates, allow_unused=True)
    saved = [(torch.zeros_like(v) if g is None else g) / constraint.whole for v, g in zip(gates, gains, strict=True)]
    odds_of = [((s + _TINY) / g.clamp_min(1e-9)).log() for s, g in zip(scores, saved, strict=True)]
    middle = torch.cat([o.reshape(-1) for o in odds_of]).median()
    centred = [o - middle for o in odds_of]
    return dict(zip(names, centred, strict=False)), dict(zip(blocks, centred[len(names) :], strict=True))


def _relative(scores: Tensor) -> Tensor:
    return (scores / scores.mean().clamp_min(_TINY)).clamp_min(_TINY).log()


def _by_damage(
    program: Program, space: SearchSpace, blocks: Sequence[str], inputs: Sequence[Tensor]
) -> dict[str, Tensor]:
    if not blocks:
        return {}
    damage = block_damage(program, space, inputs)
    odds = _relative(torch.tensor([damage[name] for name in blocks])) + _LAST
    return dict(zip(blocks, odds.unbind(), strict=True))


def _positions(space: SearchSpace, group: AxisGroup) -> Tensor:
    """The unit of every component, -1 for those of other groups."""
    found = torch.full((int(space.analysis.components.max(initial=-1)) + 1,), -1)
    found[list(group.units)] = torch.arange(group.size)
    return found


def _contributions(program: Program, space: SearchSpace, inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Per op with a weight: the component of each index that it sums over, and the squared norm of its contribution."""
    values = _inputs_of(program, [op for op, _, _ in summed_weights(program)], inputs)
    for op, weight, dim in summed_weights(program):
        cluster = space.analysis.of(weight).cluster(dim)
        energy, state = values[op], program.state[str(weight.target)].detach().float()
        if cluster is not None and len(energy) == state.shape[dim]:  # else a filter of several groups
            norms = state.square().movedim(dim, 0).flatten(1).sum(1)
            yield torch.from_numpy(space.analysis.components[cluster.ids]), norms * energy


def _inputs_of(program: Program, ops: Iterable[fx.Node], inputs: Sequence[Tensor]) -> Mapping[fx.Node, Tensor]:
    """Mean square of the input of each op, per channel: (k,)."""
    wanted, found = set(ops), dict[fx.Node, Tensor]()

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            if n in wanted:
                value: Tensor = self.env[n.args[1 if op_name(n) == "addmm" else 0]]  # type: ignore[index]
                dim = 1 if op_name(n).startswith("conv") else -1
                found[n] = value.float().square().movedim(dim, 0).flatten(1).mean(1)
            return super().run_node(n)

    with torch.no_grad():
        Watch(graphs.graph_module(program.graph, program.state), graph=program.graph).run(*inputs)
    return found
