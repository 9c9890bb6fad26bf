"""What distillation compares inside of two networks beside their logits: attention, and what leaves its blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.training import losses, taps
from compactor.training.pairing import Pair, valid
from compactor.training.positions import Stream, attentions
from compactor.training.precision import channels_last
from compactor.training.projection import HIDDEN, rows

_ALL = 1 << 20


@dataclass(frozen=True)
class InsideWeights:
    """Weights of the terms: attention maps, outputs of attention blocks, relations of the last layer."""

    maps: float = 0.0
    outputs: float = 0.0
    relation: float = 0.0

    def __bool__(self) -> bool:
        return any((self.maps, self.outputs, self.relation))


class Inside:
    """Attention maps and outputs, layer by layer (KD for quantization-aware training of encoders, EMNLP 2022).

    Per attention that both networks have, the divergence of its probabilities, and the squared error of the residual
    stream behind its block, relative to the teacher's squares; summed over layers. ``student`` shows what is compared.
    Raises `UnsupportedError` where there is nothing to compare.
    """

    def __init__(self, student: Program, teacher: Program, weights: InsideWeights) -> None:
        self.weights, self.pair = weights, Pair(student, teacher, _ALL)
        self.key = f"{weights}"
        self.behind = _behind_attention(student, self.pair) if weights.outputs else []
        ours, theirs = self.pair.watched(attention=weights.maps > 0, relation=weights.relation > 0)
        layers = {layer.name: layer.node for layer in self.pair.layers}
        for stream in self.behind:
            ours[HIDDEN + stream.name], theirs[HIDDEN + stream.name] = stream.node, layers[stream.name]
        if (weights.maps and not self.pair.attentions) or (weights.outputs and not self.behind):
            raise UnsupportedError(
                "student and teacher share no attention whose maps or outputs could be compared",
                "leave attention= and output= at 0, or give a student that was sliced from this teacher",
            )
        self.student, reference = taps.exposed(student, ours), taps.exposed(teacher, theirs)
        self._names, self._module = reference.outputs, channels_last(reference.module())

    def loss(self, found: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Tensor:
        """The weighted sum; ``found``: the outputs of ``student``."""
        with torch.no_grad():
            goal = dict(zip(self._names, self._module.to(inputs[0].device)(*inputs), strict=True))
        shown = dict(zip(self.student.outputs, found, strict=True))
        with torch.autocast(inputs[0].device.type, enabled=False):
            total = found[0].new_zeros((), dtype=torch.float32)
            for name in self.pair.attentions if self.weights.maps else ():
                ours, theirs = (self.pair.map(side, name, teacher=side is goal) for side in (shown, goal))
                total = total + self.weights.maps * losses.maps(ours, theirs, valid(goal, theirs.shape[2]))
            for stream in self.behind:
                ours, theirs = (rows(side[HIDDEN + stream.name], stream.dim) for side in (shown, goal))
                total = total + self.weights.outputs * losses.states(ours, theirs, valid(goal, theirs.shape[1]))
            if self.weights.relation:
                total = total + self.weights.relation * taps.relation(shown, goal)
        return total


def _behind_attention(student: Program, pair: Pair) -> list[Stream]:
    """The first hidden state behind every attention, where the teacher has the same at the same width."""
    order = {node: i for i, node in enumerate(student.graph.nodes)}
    known = {layer.name for layer in pair.layers}
    found = []
    for node in attentions(student).values():
        after = [s for s in pair.streams if order[s.node] > order[node]]
        if after and after[0].shape == after[0].whole and after[0].name in known:
            found.append(after[0])
    return found
