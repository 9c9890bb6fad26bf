"""Distillation losses: on logits, on hidden states, and on relations."""

import math
from collections.abc import Sequence

import torch
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


def attention_relation(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    valid: Tensor | None = None,
    *,
    heads: int = 12,
    softmax: bool = True,
) -> Tensor:
    """How far the self-relations A Aᵀ / sqrt(width) of queries, keys and values are apart, summed over the three.

    Each is (N, heads, T, width). The heads are concatenated and split again into relation heads: the largest number up
    to ``heads`` that divides the widths of both. ``valid``, (N or 1, T): positions that are no padding.
    MiniLMv2 (arXiv 2012.15828) with the squared error of AutoDistil (arXiv 2201.12507), whose
    released code leaves the softmax out. Ours: relative to the teacher's mean square, so that one weight serves both.
    """
    with torch.autocast(student[0].device.type, enabled=False):
        total = student[0].new_zeros((), dtype=torch.float32)
        for ours, theirs in zip(student, teacher, strict=True):
            length = ours.shape[2]
            seen = valid if valid is not None and valid.shape[1] == length else ours.new_ones(1, length).bool()
            common = math.gcd(ours.shape[1] * ours.shape[3], theirs.shape[1] * theirs.shape[3])
            split = next(n for n in range(min(heads, common), 0, -1) if common % n == 0)
            found, goal = (_self_relation(x, split, seen, softmax) for x in (ours, theirs))
            total = total + _relative(found, goal, seen[:, None, :, None] & seen[:, None, None, :])
    return total


def feature_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """How far the samples' similarities by their features, (N, ...) of any widths, are apart.

    Similarity-preserving distillation (arXiv 1907.09682): rows of F Fᵀ are normalised; the mean over
    rows of the squared distance.
    """
    with torch.autocast(student.device.type, enabled=False):
        found, goal = (F.normalize((flat := x.float().flatten(1)) @ flat.mT, dim=1) for x in (student, teacher))
        return _relative(found, goal, goal.new_ones(1, 1).bool())


def decoupled(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float, *, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """T² · (alpha · TCKD + beta · NCKD), mean over all but the last axis.

    TCKD is the KL between (target class, all others), NCKD the KL among the others. ``target``: (N,) or (N, T) classes.
    Decoupled knowledge distillation (arXiv 2203.08679, equation 7).
    """
    width = student.shape[-1]
    own = F.one_hot(target.reshape(-1), width).bool()

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        known = F.log_softmax(logits.reshape(-1, width).float() / temperature, -1)
        others = known[~own].reshape(-1, width - 1)
        total = others.logsumexp(-1, keepdim=True)
        return torch.cat([known[own][:, None], total], -1), others - total

    pairs = zip((alpha, beta), parts(student), parts(teacher), strict=True)
    return temperature**2 * torch.stack([w * _divergence(found, goal) for w, found, goal in pairs]).sum()


def top_k(
    student: Tensor, teacher: Tensor, temperature: float, *, k: int, tail: float = 1.0, reverse: bool = False
) -> Tensor:
    """T² · (KL over {the teacher's top k classes, all others as one} + tail · KL among the others), mean over rows.

    Ours, after TopKLD (arXiv 2501.06218), whose formula we could not read: the first part is what the teacher says of
    its best classes, the second the rest of the distribution. The bucket keeps the top k unbiased (arXiv 2503.16870,
    section 3). With k of all classes (or all but one) it is `soft`. ``reverse``: KL from the teacher to the student.
    """
    width = student.shape[-1]
    best = teacher.reshape(-1, width).topk(min(k, width)).indices

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        known = F.log_softmax(logits.reshape(-1, width).float() / temperature, -1)
        if k >= width:
            return known, known[:, :0]
        bucket = known.scatter(-1, best, -torch.inf).logsumexp(-1, keepdim=True)
        # Among the others the best are equal on both sides, so that they add nothing.
        others = (known - bucket).scatter(-1, best, 0.0)
        return torch.cat([known.gather(-1, best), bucket], -1), others

    found, goal = (parts(goal if reverse else own) for own, goal in ((student, teacher), (teacher, student)))
    head, rest = (_divergence(a, b) for a, b in zip(found, goal, strict=True))
    return temperature**2 * (head + tail * rest)


def states(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Squared error of hidden states (N, P, C) over the teacher's squares, at ``valid`` (N or 1, P) positions.

    Ours: relative, so that one weight serves streams of any scale.
    """
    seen = torch.ones_like(teacher[:1, :, 0], dtype=torch.bool) if valid is None else valid
    return _relative(student.float(), teacher.float(), seen[..., None])


def smooth_states(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """Smooth-L1 of hidden states (N, P, C) to the teacher's, normalised without parameters (VkD, arXiv 2403.06213)."""
    goal = F.layer_norm(teacher.float(), teacher.shape[-1:])
    each = F.smooth_l1_loss(student.float(), goal, reduction="none").mean(-1)
    return each.mean() if valid is None else (each * valid).sum() / valid.expand_as(each).sum().clamp_min(1)


def maps(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> Tensor:
    """KL of attention probabilities (N, heads, T, T), mean over samples, heads and ``valid`` (N or 1, T) queries.

    KD for quantization-aware training of encoders (EMNLP 2022). Ours: where heads were removed, means are compared.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    tiny = torch.finfo(torch.float32).tiny
    each = (teacher * (teacher.clamp_min(tiny).log() - student.clamp_min(tiny).log())).sum(-1).mean(1)
    return each.mean() if valid is None else (each * valid).sum() / valid.expand_as(each).sum().clamp_min(1)


def _self_relation(x: Tensor, heads: int, valid: Tensor, softmax: bool) -> Tensor:
    """(N, heads, T, T)"""
    split = x.float().transpose(1, 2).reshape(len(x), x.shape[2], heads, -1).transpose(1, 2)
    relation: Tensor = split @ split.mT / math.sqrt(split.shape[-1])
    return relation.masked_fill(~valid[:, None, None, :], -torch.inf).softmax(-1) if softmax else relation


def _relative(found: Tensor, goal: Tensor, counted: Tensor) -> Tensor:
    """Squared error over the teacher's squares, where counted."""
    return ((found - goal).square() * counted).sum() / (goal.square() * counted).sum().clamp_min(1e-12)


def _divergence(found: Tensor, goal: Tensor) -> Tensor:
    return F.kl_div(found, goal, reduction="batchmean", log_target=True)
