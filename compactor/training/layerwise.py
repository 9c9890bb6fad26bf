"""The objective of layerwise distillation: soft targets, and the teacher's hidden states wherever they fit best."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compactor.data import Batch, Split
from compactor.training import losses, taps
from compactor.training.engine import Micro
from compactor.training.kept import Kept
from compactor.training.matching import monotone
from compactor.training.pairing import Pair, plain, valid
from compactor.training.precision import channels_last
from compactor.training.projection import HIDDEN, Guided, Linear, Orthogonal, Projector, free
from compactor.training.schedule import generator
from compactor.training.taps import Named
from compactor.training.views import Views, seen

SAMPLES = 64
"""Samples from which projections start."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms; all but the labels and the logits are taken from inside."""

    logits: float = 0.1
    hidden: float = 0.9
    attention: float = 0.0
    relation: float = 0.0
    labels: float = 0.0
    temperature: float = 2.0


class Layerwise:
    """a·T²·KL + b·sum of the errors of hidden states, and by their weights those of attention maps and relations.

    ``partners`` are (teacher, student) layers; without, they are matched anew in every step (`monotone`). Behind
    orthogonal projections the error is that of VkD. The frozen teacher sees what the student sees: epoch e shows view e
    of the images. It runs in every step, unless what it shows is ``kept``: then views repeat.
    """

    def __init__(
        self,
        pair: Pair,
        teacher: Guided,
        split: Split,
        weights: Weights,
        *,
        projector: Projector = "linear",
        views: Views | None = None,
        partners: Sequence[tuple[int, int]] | None = None,
        kept: Kept | None = None,
        how: str = "",
    ) -> None:
        self.pair, self.teacher, self.split, self.weights = pair, teacher, split, weights
        channels_last(teacher)
        self.projector, self.views, self.partners, self.kept = projector, views, partners, kept
        drawn = views.key if views else ""
        layers = [layer.name for layer in pair.layers]
        self.key = f"{pair.teacher.fingerprint} {weights} {layers} {projector} {drawn} {partners} {how}"
        self.key += f" kept {kept.count}" if kept else ""

    def batch(self, micro: Micro) -> Batch:
        """The samples as the epoch's view shows them."""
        view = micro.epoch if self.kept is None else micro.epoch % self.kept.count
        return seen(self.split, self.views, micro.indices, view)

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """The weighted sum; ``module`` is a `Guided` student."""
        goal, found = self._goal(batch, micro), module(*batch.inputs)
        logits, wanted = (next(iter(side.values())) for side in (found, goal))
        total = self.weights.logits * losses.soft(logits, wanted, self.weights.temperature)
        if self.weights.labels and batch.labels is not None:
            total = total + self.weights.labels * losses.hard(logits, batch.labels.to(logits.device))
        return total + self._inside(found, goal)

    def _goal(self, batch: Batch, micro: Micro) -> Named:
        if self.kept is not None:
            return self.kept(micro.indices, micro.epoch, batch.inputs)
        with torch.no_grad():
            shown: Named = self.teacher.to(batch.inputs[0].device)(*batch.inputs)
        return shown

    def _inside(self, found: Named, goal: Named) -> Tensor:
        weights, pair = self.weights, self.pair
        with torch.autocast(next(iter(found.values())).device.type, enabled=False):
            total = weights.hidden * self._hidden(found, goal)
            if weights.attention:
                for name in pair.attentions:
                    ours, theirs = (pair.map(side, name, teacher=side is goal) for side in (found, goal))
                    total = total + weights.attention * losses.maps(ours, theirs, valid(goal, theirs.shape[2]))
            if weights.relation:
                total = total + weights.relation * taps.relation(found, goal)
        return total

    def _hidden(self, found: Named, goal: Named) -> Tensor:
        each = [self._error(found, goal, *pair) for pair in self.matched(found, goal)]
        # States that are not finite match none: the loss says so, and training stops.
        return torch.stack(each).sum() if each else torch.tensor(torch.nan)

    def matched(self, found: Named, goal: Named) -> Sequence[tuple[int, int]]:
        """(teacher, student) layers that are compared, as indices of the pair's layers and streams."""
        if self.partners is not None:
            return self.partners
        pair, none = self.pair, torch.tensor(torch.inf, device=next(iter(found.values())).device)
        with torch.no_grad():
            costs = [
                self._error(found, goal, t, s) if pair.fits(layer, stream) else none
                for t, layer in enumerate(pair.layers)
                for s, stream in enumerate(pair.streams)
            ]
        return monotone(torch.stack(costs).view(len(pair.layers), -1).tolist())

    def matches(self, module: nn.Module, indices: Tensor) -> dict[str, str]:
        """Teacher's to student's layer names as these samples match them."""
        inputs = self.split.take(indices).inputs
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # dropout
            pairs = self.matched(module(*inputs), self.teacher(*inputs))
        return {self.pair.layers[t].name: self.pair.streams[s].name for t, s in pairs}

    def _error(self, found: Named, goal: Named, layer: int, stream: int) -> Tensor:
        learner = self.pair.streams[stream]
        ours, theirs = found[HIDDEN + learner.name], goal[HIDDEN + self.pair.layers[layer].name]
        error = losses.states if free(self.projector, learner.widths) else losses.smooth_states
        return error(ours, theirs, valid(goal, theirs.shape[1]))


def student(
    pair: Pair, split: Split, weights: Weights, *, projector: Projector = "auto", dropout: bool = False, seed: int = 0
) -> Guided:
    """The module to train: the student, its projections, and what the weights ask for."""
    ours, _ = pair.watched(attention=weights.attention > 0, relation=weights.relation > 0)
    made = projections(pair, split, projector=projector, seed=seed)
    return Guided.of(pair.student, pair.streams, made, ours, dropout=dropout)


def projections(pair: Pair, split: Split, *, projector: Projector = "auto", seed: int = 0) -> dict[str, nn.Module]:
    """By stream; one for all streams of a shape."""
    found: dict[str, nn.Module] = {}
    for streams, begin in pair.starts(split, first(split, seed)):
        kind = Linear if free(projector, streams[0].widths) else Orthogonal
        found.update(dict.fromkeys((s.name for s in streams), kind(begin)))
    return found


def reference(pair: Pair, weights: Weights) -> Guided:
    """The frozen teacher."""
    _, theirs = pair.watched(attention=weights.attention > 0, relation=weights.relation > 0)
    return plain(pair.teacher, pair.layers, theirs)


def first(split: Split, seed: int) -> Tensor:
    """Some samples, by seed."""
    return torch.randperm(len(split), generator=generator(seed, 0x1A7E))[:SAMPLES]
