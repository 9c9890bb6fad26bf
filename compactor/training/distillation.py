"""The objective of logit distillation, shared by every pass that trains against a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from compactor.data import Batch, Split
from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.pipeline.context import Progress, Silent
from compactor.training import losses, taps
from compactor.training.cache import Teacher, outputs
from compactor.training.engine import Micro
from compactor.training.precision import channels_last
from compactor.training.views import Views, seen

KEPT_BYTES = 1 << 30
"""Most memory that the teacher's kept outputs may take."""


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


class Relation:
    """The relation loss of `taps` at a weight, against a teacher that runs in every step.

    ``student``: the names of the tapped student's outputs.
    """

    def __init__(self, teacher: Program, student: Sequence[str], weight: float) -> None:
        reference = taps.tapped(teacher)
        self.weight, self._ours, self._theirs = weight, student, reference.outputs
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

    Epoch e shows view e mod ``count``. With ``keep`` the teacher answers once for each sample and view and its outputs
    stay in ``workspace``; without, or when they would not fit `KEPT_BYTES`, it runs in every step.
    """

    teacher: Teacher
    split: Split
    workspace: Path
    temperature: float = 4.0
    label_weight: float = 0.0
    decoupled: Decoupled | None = None
    relation: Relation | None = None
    views: Views | None = None
    count: int = 1
    keep: bool = True
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        first = self.teacher(self.split.take(torch.arange(min(2, len(self.split)))).inputs)
        if first.dim() not in (2, 3) or first.shape[-1] < 2:
            raise UnsupportedError(
                f"the teacher's first output has shape {tuple(first.shape)}, not (N, classes) or (N, T, classes)",
                "distillation of logits needs class logits",
            )
        bytes_ = 4 * first.shape[-1] * len(self.split) * self.count
        self._kept = self.keep and first.dim() == 2 and bytes_ <= KEPT_BYTES
        self._outputs: dict[int, Tensor] = {}

    @property
    def key(self) -> str:
        """Teacher, options and views."""
        views = self.views.key if self.views else ""
        relation = self.relation.weight if self.relation else 0.0
        terms = f"{self.temperature} {self.label_weight} {self.decoupled} {relation}"
        return f"{self.teacher.fingerprint} {terms} {views} {self.count} {self._kept}"

    def batch(self, micro: Micro) -> Batch:
        """The samples as the epoch's view shows them."""
        return seen(self.split, self.views, micro.indices, micro.epoch % self.count)

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """Soft targets, and true labels and relations by their weights."""
        outputs = module(*batch.inputs)
        found: Tensor = outputs[0]
        goal = self._targets(batch, micro).to(found.device)
        if self.decoupled is not None:
            loss = self.decoupled.loss(found, goal, batch.labels, self.temperature, micro)
        else:
            loss = losses.soft(found, goal, self.temperature)
        if self.label_weight and batch.labels is not None:
            true = losses.hard(found, batch.labels.to(found.device))
            loss = (1 - self.label_weight) * loss + self.label_weight * true
        return loss if self.relation is None else loss + self.relation.loss(outputs, batch.inputs)

    def _seen(self, inputs: tuple[Tensor, ...], indices: Tensor, view: int) -> tuple[Tensor, ...]:
        return inputs if self.views is None else self.views(inputs, indices, view)

    def _targets(self, batch: Batch, micro: Micro) -> Tensor:
        if not self._kept:
            return self.teacher(batch.inputs)
        view = micro.epoch % self.count
        if view not in self._outputs:
            drawn = self.views.key if self.views else ""
            self._outputs[view] = outputs(
                self.teacher,
                self.split,
                self.workspace,
                name=f"view{view}",
                drawn=drawn,
                view=lambda inputs, indices: self._seen(inputs, indices, view),
                progress=self.progress,
            )
        return self._outputs[view][micro.indices]
