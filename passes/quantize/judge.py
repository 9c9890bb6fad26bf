"""Scores on a part of ``dev``, for passes that choose between ways to quantize."""

from dataclasses import dataclass

import torch

from compactor import scoring
from compactor.data import Batch, Split
from compactor.ir.program import Program
from compactor.pipeline.context import PassContext


@dataclass(frozen=True)
class Judge:
    """Scores models on a part of ``dev``: against labels, or by agreement with the teacher."""

    name: str
    split: "Part"
    teacher: Program

    @staticmethod
    def of(ctx: PassContext, samples: int) -> "Judge":
        """The judge for this build: at most ``samples`` of ``dev``, drawn by seed."""
        dev = ctx.data.dev
        order = torch.randperm(len(dev), generator=torch.Generator().manual_seed(ctx.seed))
        name = "unverified" if ctx.data.synthetic else "accuracy" if dev.labelled else "agreement"
        return Judge(name, Part(dev, order[:samples].sort().values), ctx.teacher)

    def score(self, run: scoring.Run) -> float:
        """Percent."""
        run = scoring.scorable(run) if isinstance(run, Program) else run
        if self.name == "accuracy":
            return scoring.accuracy(run, self.split)
        return scoring.agreement(run, self.teacher, self.split)


class Part:
    """Some samples of a split."""

    def __init__(self, split: Split, chosen: torch.Tensor) -> None:
        self.split, self.chosen = split, chosen

    @property
    def labelled(self) -> bool:
        """As the whole split."""
        return self.split.labelled

    @property
    def fingerprint(self) -> str:
        """Of the whole split; the choice follows from the seed."""
        return self.split.fingerprint

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, indices: torch.Tensor) -> Batch:
        """The batch of these samples."""
        return self.split.take(self.chosen[indices])
