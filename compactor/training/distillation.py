"""The objective of logit distillation, shared by every pass that trains against a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from compactor.data import Batch, Split
from compactor.errors import UnsupportedError
from compactor.ir import padding
from compactor.ir.program import Program
from compactor.pipeline.context import Progress, Silent
from compactor.training import losses, taps
from compactor.training.cache import Teacher, outputs
from compactor.training.engine import Micro
from compactor.training.precision import channels_last
from compactor.training.schedule import generator
from compactor.training.views import Views, seen

KEPT_BYTES = 1 << 30
"""Most memory that the teacher's kept outputs may take."""

_ASKED = 1 << 24
"""Logits that the teacher is asked for at once when its outputs are to be kept."""


class Term(Protocol):
    """What the student's logits are held against the teacher's by, in place of the plain divergence."""

    def loss(self, found: Tensor, goal: Tensor, labels: Tensor | None, temperature: float, micro: Micro) -> Tensor:
        """``found``: the student's logits (..., classes), ``goal``: the teacher's; the mean over all rows."""
        ...


@dataclass(frozen=True)
class Decoupled:
    """Weights of `losses.decoupled`, which rises over the first ``warmup`` share of the steps (DKD, appendix A)."""

    alpha: float = 1.0
    beta: float = 8.0
    warmup: float = 1 / 12

    def loss(self, found: Tensor, goal: Tensor, labels: Tensor | None, temperature: float, micro: Micro) -> Tensor:
        """The target is the true class, or where there is none the teacher's."""
        target = goal.argmax(-1) if labels is None else labels.to(goal.device)
        rise = min(1.0, (micro.step + 1) / max(1.0, self.warmup * micro.total))
        return rise * losses.decoupled(found, goal, target, temperature, alpha=self.alpha, beta=self.beta)


@dataclass(frozen=True)
class TopK:
    """`losses.top_k`: the teacher's ``k`` best classes apart, and the others by ``tail``."""

    k: int
    tail: float = 1.0
    reverse: bool = False

    def loss(self, found: Tensor, goal: Tensor, labels: Tensor | None, temperature: float, micro: Micro) -> Tensor:
        """Labels and step do not count."""
        return losses.top_k(found, goal, temperature, k=self.k, tail=self.tail, reverse=self.reverse)


@dataclass(frozen=True)
class Draws:
    """Classes drawn from the teacher instead of all its logits: ``count`` of them with replacement, at a temperature.

    Their shares are an unbiased estimate of the teacher's probabilities, as those of its top classes are not (sparse
    logit sampling, arXiv 2503.16870, section 4), and take less memory.
    """

    count: int
    temperature: float
    seed: int = 0

    def drawn(self, logits: Tensor, indices: Tensor, view: int) -> Tensor:
        """Classes (N, ..., count), int32, for logits (N, ..., classes) of these samples of a view."""
        random = generator(self.seed, view, int(indices[0]), 0xD7A5)
        rows = (logits / self.temperature).softmax(-1).flatten(0, -2)
        found = torch.multinomial(rows, self.count, replacement=True, generator=random)
        return found.int().view(*logits.shape[:-1], self.count)

    def logits(self, drawn: Tensor, classes: int) -> Tensor:
        """Logits (N, ..., classes) whose probabilities at the temperature are the shares."""
        counts = torch.zeros(*drawn.shape[:-1], classes).scatter_add_(-1, drawn.long(), torch.ones(drawn.shape))
        shares = counts / self.count
        return self.temperature * shares.clamp_min(torch.finfo(torch.float32).tiny).log()


class Guide(Protocol):
    """A further term on what is inside of both networks, against a teacher that runs in every step."""

    @property
    def key(self) -> str:
        """All that it depends on."""
        ...

    def loss(self, found: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Tensor:
        """``found``: the outputs of a student that shows its inside."""
        ...


class Relation:
    """The relation loss of `taps` at a weight, against a teacher that runs in every step.

    ``student``: the names of the tapped student's outputs.
    """

    def __init__(self, teacher: Program, student: Sequence[str], weight: float) -> None:
        reference = taps.tapped(teacher)
        self.weight, self._ours, self._theirs = weight, student, reference.outputs
        self.key = f"{weight}"
        self._module = channels_last(reference.module())

    def loss(self, found: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Tensor:
        """``found``: the tapped student's outputs."""
        with torch.no_grad():
            goal = self._module.to(inputs[0].device)(*inputs)
        theirs = dict(zip(self._theirs, goal, strict=True))
        return self.weight * taps.relation(dict(zip(self._ours, found, strict=True)), theirs)


@dataclass
class Distillation:
    """Soft targets of the teacher, who sees what the student sees, and by ``label_weight`` the true labels.

    ``term`` takes the place of the plain divergence. Of token-wise logits (N, T, classes) those that the input ``mask``
    hides do not count. Epoch e shows view e mod ``count``. With ``keep`` the teacher answers once for each sample and
    view and its outputs, or ``draws`` from them, stay in ``folder``; without, when they would not fit `KEPT_BYTES`,
    or when they are token-wise and not all of one length, it runs in every step.
    """

    teacher: Teacher
    split: Split
    folder: Path
    temperature: float = 4.0
    label_weight: float = 0.0
    term: Term | None = None
    guide: Guide | None = None
    draws: Draws | None = None
    views: Views | None = None
    count: int = 1
    mask: int | None = None
    keep: bool = True
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        first = self.teacher(self.split.take(torch.arange(min(2, len(self.split)))).inputs)
        if first.dim() not in (2, 3) or first.shape[-1] < 2:
            raise UnsupportedError(
                f"the teacher's first output has shape {tuple(first.shape)}, not (N, classes) or (N, T, classes)",
                "distillation of logits needs class logits",
            )
        self._classes, self._rows = first.shape[-1], first[0, ..., 0].numel()
        each = self._classes if self.draws is None else self.draws.count
        bytes_ = 4 * each * self._rows * len(self.split) * self.count
        self._kept = self.keep and (first.dim() == 2 or self.teacher.fixed) and bytes_ <= KEPT_BYTES
        self._outputs: dict[int, Tensor] = {}

    @property
    def key(self) -> str:
        """Teacher, options, views and what counts."""
        views = self.views.key if self.views else ""
        guide = self.guide.key if self.guide else "0.0"
        terms = f"{self.temperature} {self.label_weight} {self.term} {guide} {self.draws}"
        return f"{self.teacher.fingerprint} {terms} {views} {self.count} {self.mask} {self._kept}"

    def batch(self, micro: Micro) -> Batch:
        """The samples as the epoch's view shows them."""
        return seen(self.split, self.views, micro.indices, micro.epoch % self.count)

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """Soft targets, and true labels and what is inside by their weights."""
        outputs = module(*batch.inputs)
        counted = padding.tokens(outputs[0], batch.inputs, self.mask)
        found: Tensor = outputs[0][counted]
        goal = self._targets(batch, micro).to(found.device)[counted]
        labels = None if batch.labels is None else batch.labels.to(found.device)[counted]
        if self.term is not None:
            loss = self.term.loss(found, goal, labels, self.temperature, micro)
        else:
            loss = losses.soft(found, goal, self.temperature)
        if self.label_weight and labels is not None:
            true = losses.hard(found, labels)
            loss = (1 - self.label_weight) * loss + self.label_weight * true
        return loss if self.guide is None else loss + self.guide.loss(outputs, batch.inputs)

    def _seen(self, inputs: tuple[Tensor, ...], indices: Tensor, view: int) -> tuple[Tensor, ...]:
        return inputs if self.views is None else self.views(inputs, indices, view)

    def _targets(self, batch: Batch, micro: Micro) -> Tensor:
        view, draws = micro.epoch % self.count, self.draws
        if self._kept:
            known = self._known(view)[micro.indices]
        else:
            known = self.teacher(batch.inputs)
            known = known if draws is None else draws.drawn(known, micro.indices, view)
        return known if draws is None else draws.logits(known, self._classes)

    def _known(self, view: int) -> Tensor:
        draws = self.draws
        if view not in self._outputs:
            drawn = f"{self.views.key if self.views else ''} {draws or ''}".strip()
            self._outputs[view] = outputs(
                self.teacher,
                self.split,
                self.folder,
                name=f"view{view}",
                drawn=drawn,
                view=lambda inputs, indices: self._seen(inputs, indices, view),
                kept=None if draws is None else lambda logits, indices: draws.drawn(logits, indices, view),
                batch=max(1, min(256, _ASKED // (self._rows * self._classes))),
                progress=self.progress,
            )
        return self._outputs[view]
