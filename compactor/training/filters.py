"""Task-aware filters: what of a hidden state matters for the task, learned by heads on frozen networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compactor.data import Batch, Split
from compactor.training import losses
from compactor.training.engine import Micro
from compactor.training.layerwise import Layerwise, Weights, first, reference
from compactor.training.pairing import Pair, plain, valid
from compactor.training.positions import Stream
from compactor.training.projection import HIDDEN, Guided, Linear
from compactor.training.schedule import mix
from compactor.training.taps import Named
from compactor.training.views import Views, seen

Partners = Sequence[tuple[int, int]]


class Filters(nn.Module):
    """For each pair of layers a linear filter and a head of its own on both sides (TED, section 3.1).

    ``starts``: (teacher's width, student's width), where the student's filters begin; the teacher's begin as identity.
    """

    def __init__(self, starts: Sequence[Tensor], classes: int, seed: int) -> None:
        super().__init__()
        self.teacher = nn.ModuleList(Linear(torch.eye(len(start))) for start in starts)
        self.student = nn.ModuleList(Linear(start) for start in starts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, 0x7ED))
            self.heads = nn.ModuleList(nn.Linear(len(start), classes) for start in (*starts, *starts))

    def forward(
        self, theirs: Sequence[Tensor], ours: Sequence[Tensor], mask: Tensor | None, each: bool
    ) -> list[Tensor]:
        """Logits of all heads, (N, classes), or with ``each`` (N, positions, classes).

        States are (N, positions, width); ``mask`` (N or 1, positions) says which count in their mean.
        """
        filtered = [f(x) for f, x in zip((*self.teacher, *self.student), (*theirs, *ours), strict=True)]
        normed = (F.layer_norm(x, x.shape[-1:]) for x in filtered)
        pooled = (x if each else _mean(x, mask) for x in normed)
        return [head(x) for head, x in zip(self.heads, pooled, strict=True)]


class FilterTask:
    """The mean loss of the heads: true labels, else the teacher's. Both networks stay as they are."""

    def __init__(
        self, pair: Pair, partners: Partners, split: Split, *, temperature: float, views: Views | None = None
    ) -> None:
        self.split, self.temperature, self.views = split, temperature, views
        self.layers = [pair.layers[t] for t, _ in partners]
        self.streams = [pair.streams[s] for _, s in partners]
        self.teacher = plain(pair.teacher, self.layers, pair.watched(attention=False, relation=False)[1])
        self.student = plain(pair.student, self.streams)
        names = [(t.name, s.name) for t, s in zip(self.layers, self.streams, strict=True)]
        drawn = views.key if views else ""
        self.key = f"filters {pair.teacher.fingerprint} {pair.student.fingerprint} {names} {temperature} {drawn}"

    def batch(self, micro: Micro) -> Batch:
        """The samples as the epoch's view shows them."""
        return seen(self.split, self.views, micro.indices, micro.epoch)

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """Of the `Filters`."""
        with torch.no_grad():
            goal, found = (network(*batch.inputs) for network in (self.teacher, self.student))
        logits = next(iter(goal.values())).float()
        theirs, ours = _states(goal, self.layers), _states(found, self.streams)
        mask = valid(goal, theirs[0].shape[1])
        heads = module(theirs, ours, mask, logits.dim() == 3)
        return torch.stack([self._of_head(head, logits, batch.labels) for head in heads]).mean()

    def _of_head(self, head: Tensor, logits: Tensor, labels: Tensor | None) -> Tensor:
        return losses.soft(head, logits, self.temperature) if labels is None else losses.hard(head, labels)


def aligned(pair: Pair, split: Split, seed: int) -> tuple[Partners, list[Tensor]]:
    """(teacher, student) layers that fit before training, and where the student's filters begin."""
    indices = first(split, seed)
    starts = {s.name: begin for group, begin in pair.starts(split, indices) for s in group}
    projected = Guided.of(pair.student, pair.streams, {n: Linear(b) for n, b in starts.items()}, train=False)
    objective = Layerwise(pair, reference(pair, Weights()), split, Weights())
    inputs = split.take(indices).inputs
    with torch.no_grad():
        partners = objective.matched(projected(*inputs), objective.teacher(*inputs))
    return partners, [starts[pair.streams[s].name] for _, s in partners]


def guided(pair: Pair, partners: Partners, filters: Filters, *, dropout: bool) -> tuple[Guided, Guided]:
    """The student with its filters, to train, and the teacher with its own, frozen; heads are dropped."""
    layers, streams = [pair.layers[t] for t, _ in partners], [pair.streams[s] for _, s in partners]
    ours = {s.name: f for s, f in zip(streams, filters.student, strict=True)}
    theirs = {t.name: f for t, f in zip(layers, filters.teacher, strict=True)}
    mask = pair.watched(attention=False, relation=False)[1]
    teacher = Guided.of(pair.teacher, layers, theirs, mask, train=False)
    return Guided.of(pair.student, streams, ours, dropout=dropout), teacher.requires_grad_(False)


def _states(found: Named, streams: Sequence[Stream]) -> list[Tensor]:
    return [found[HIDDEN + s.name] for s in streams]


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """(N, positions, width) to (N, width)."""
    if mask is None:
        return x.mean(1)
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
