"""Distillation losses on logits."""

from torch import Tensor
from torch.nn import functional as F


def soft(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) || softmax(student / T)), mean over all but the last axis.

    arXiv 1503.02531, section 2.
    """
    width = student.shape[-1]
    goal = F.log_softmax(teacher.reshape(-1, width).float() / temperature, -1)
    found = F.log_softmax(student.reshape(-1, width).float() / temperature, -1)
    return F.kl_div(found, goal, reduction="batchmean", log_target=True) * temperature**2


def hard(student: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with labels, mean over all but the last axis."""
    return F.cross_entropy(student.reshape(-1, student.shape[-1]).float(), labels.reshape(-1))
