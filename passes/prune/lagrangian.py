"""The objective of pruning: distillation under random gates, and a Lagrangian that holds the expected cost to a target.

CoFi (ACL 2022), section 3.2, after Wang et al. (EMNLP 2020): the multipliers are trained by gradient ascent while the
target falls linearly from the whole cost to the limit.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from compactor.data import Batch
from compactor.passes.prune.constraint import Constraint
from compactor.passes.prune.gates import GatedStudent
from compactor.training import Objective
from compactor.training.engine import Micro


@dataclass
class Pruning:
    """What is minimised for ``student``: its loss against the teacher, plus l1 (s - t) + l2 (s - t)^2.

    s is the expected cost and t the target, both as shares of the whole cost. ``ramp``: share of the steps in which t
    falls to the limit; ``one_sided``: being below the target costs nothing (TinyCLIP, ICCV 2023, section 3.3).
    """

    student: GatedStudent
    distillation: Objective
    constraint: Constraint
    ramp: float
    one_sided: bool

    @property
    def key(self) -> str:
        """Teacher, options, views and limit."""
        limit = f"{self.constraint.kind} {self.constraint.limit!r} of {self.constraint.whole!r}"
        return f"{self.distillation.key} {limit} {self.ramp} {self.one_sided}"

    def batch(self, micro: Micro) -> Batch:
        """As for distillation."""
        return self.distillation.batch(micro)

    def target(self, micro: Micro) -> float:
        """The share of the whole cost to be at in this step."""
        limit = self.constraint.limit / self.constraint.whole
        return 1 + (limit - 1) * min(1.0, (micro.step + 1) / (self.ramp * micro.total))

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """Distillation and penalty."""
        loss = self.distillation.loss(module, batch, micro)
        return loss + self.penalty(self.target(micro)).to(loss)

    def penalty(self, target: float) -> Tensor:
        """The Lagrangian term at a target share; descent on it ascends in the multipliers."""
        excess = self.constraint.expected(*self.student.gates.probabilities()) / self.constraint.whole - target
        if self.one_sided:
            excess = excess.clamp(min=0)
        multipliers = self.student.multipliers.cpu()
        first, second = (2 * multipliers.detach() - multipliers).double()
        penalty: Tensor = first * excess + second * excess.square()
        return penalty
