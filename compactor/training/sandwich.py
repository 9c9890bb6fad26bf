"""The objective of weight-shared super-networks: the sandwich rule, against a teacher."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from compactor.data import Batch, Split
from compactor.ir.program import Program
from compactor.ir.subnet import Subnet
from compactor.training import losses, taps
from compactor.training.engine import Micro
from compactor.training.precision import channels_last
from compactor.training.schedule import generator
from compactor.training.taps import Named
from compactor.training.views import Views, seen


@dataclass(frozen=True)
class Terms:
    """Weights of the losses, and how relations are taken (`losses.attention_relation`)."""

    logits: float = 1.0
    relation: float = 1.0
    temperature: float = 4.0
    heads: int = 12
    softmax: bool = True

    def loss(self, found: Named, goal: Named) -> Tensor:
        """Of a student; outputs are by name, the logits first, with those of `taps.tapped`."""
        logits, wanted = (next(iter(side.values())) for side in (found, goal))
        total = self.logits * losses.soft(logits, wanted, self.temperature)
        if self.relation:
            total = total + self.relation * taps.relation(found, goal, heads=self.heads, softmax=self.softmax)
        return total


class Sandwich:
    """The mean loss of the largest subnet, the smallest and ``random`` others on the same samples, in every step.

    ``subnets``: all that take part, the largest first and the smallest last. The module is a `Supernet` of the largest.
    The rule is that of universally slimmable networks (arXiv 1903.05134). The teacher sees what the
    subnets see; epoch e shows view e of the images.
    """

    def __init__(
        self,
        teacher: Program,
        split: Split,
        subnets: Sequence[Subnet],
        terms: Terms,
        *,
        random: int = 2,
        views: Views | None = None,
    ) -> None:
        reference = taps.tapped(teacher)
        self.teacher, self._names = channels_last(reference.module()), reference.outputs
        self.split, self.subnets, self.terms, self.random, self.views = split, subnets, terms, random, views
        drawn = views.key if views else ""
        taking_part = hashlib.sha256(repr(tuple(subnets)).encode()).hexdigest()
        self.key = f"{teacher.fingerprint} {terms} {random} {drawn} {taking_part}"

    def batch(self, micro: Micro) -> Batch:
        """The samples as the epoch's view shows them."""
        return seen(self.split, self.views, micro.indices, micro.epoch)

    def summands(self, module: nn.Module, batch: Batch, micro: Micro) -> Sequence[Callable[[], Tensor]]:
        """A loss for each subnet of this step."""
        with torch.no_grad():
            outputs = self.teacher.to(batch.inputs[0].device)(*batch.inputs)
        goal = dict(zip(self._names, outputs, strict=True))
        drawn = self.drawn(micro.seed)

        def loss(subnet: Subnet) -> Tensor:
            return self.terms.loss(module(subnet, *batch.inputs), goal) / len(drawn)

        return [partial(loss, subnet) for subnet in drawn]

    def drawn(self, seed: int) -> list[Subnet]:
        """The subnets of a step, the largest last: it uses all weights."""
        numbers = torch.randint(len(self.subnets), (self.random,), generator=generator(seed, 0x5A4D)).tolist()
        return [*(self.subnets[i] for i in numbers), self.subnets[-1], self.subnets[0]]
