"""Ranking the subnets of a trained super-network on held-out data, without training any of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compactor.data import Split
from compactor.ir.program import Program
from compactor.ir.subnet import Subnet
from compactor.pipeline.context import Progress
from compactor.training import losses
from compactor.training.cache import Teacher
from compactor.training.schedule import generator
from compactor.training.statistics import recalibrated
from compactor.training.supernet import Supernet

_BATCH = 64


class HeldOut:
    """Samples that were not trained on, with what the teacher says of them; labels are not needed.

    ``calibration`` sets the batch norms of each subnet.
    """

    def __init__(
        self,
        teacher: Program,
        split: Split,
        calibration: Sequence[Tensor],
        *,
        samples: int,
        temperature: float,
        seed: int,
    ) -> None:
        chosen = torch.randperm(len(split), generator=generator(seed, 0xDE7))[:samples]
        lengths = getattr(split, "lengths", None)
        if lengths is not None:
            chosen = chosen[torch.argsort(torch.as_tensor(lengths)[chosen], stable=True)]
        inputs = [split.take(part).inputs for part in torch.split(chosen, _BATCH)]
        answers = Teacher(teacher)
        self._batches = [(one, answers(one)) for one in inputs]
        self._calibration, self._temperature = calibration, temperature

    def student(self, net: Supernet, subnet: Subnet) -> Program:
        """The subnet with the weights of the super-network and batch norm statistics of its own."""
        return recalibrated(net.student(subnet), self._calibration)

    def loss(self, student: Program) -> float:
        """Mean soft loss against the teacher (`losses.soft`)."""
        answers, total, count = Teacher(student), 0.0, 0
        for inputs, goal in self._batches:
            total += float(losses.soft(answers(inputs), goal, self._temperature)) * len(goal)
            count += len(goal)
        return total / count

    def rank(self, net: Supernet, subnets: Sequence[Subnet], progress: Progress) -> list[tuple[float, Subnet]]:
        """(loss, subnet), the lowest loss first."""
        found = []
        for number, subnet in enumerate(subnets, 1):
            found.append((self.loss(self.student(net, subnet)), subnet))
            progress.update(number, len(subnets), "subnets ranked")
        return sorted(found, key=lambda pair: pair[0])
