"""`semantic`: do student and teacher, both untrained, tell classes apart by the same channels? (DisWOT, eq. 2.)"""

from torch import Tensor
from torch.nn import functional as F

from compactor.passes.search.proxies.relation import relation
from compactor.passes.search.proxies.subject import Proxy, Subject


def distance(teacher: Tensor, student: Tensor) -> float:
    """``sum_k ||E_T,k - E_S,k||_F^2 / (C K)`` for (K, C) gradients of the classifier's weight.

    E_k is the (C, C) outer product of row k with itself, its rows of length one: row i is ``sign(w_i) w / |w|``. So
    the C x C matrices need not be made: ``<E_T, E_S> = <sign w_T, sign w_S> <w_T, w_S> / (|w_T| |w_S|)``.
    """
    classes, channels = teacher.shape
    lengths = (teacher != 0).sum() + (student != 0).sum()
    signs = (teacher.sign() * student.sign()).sum(1)
    cosines = (F.normalize(teacher, dim=1) * F.normalize(student, dim=1)).sum(1)
    return float(lengths - 2 * (signs * cosines).sum()) / (channels * classes)


def semantic(subject: Subject) -> float:
    """The mean of ``-distance`` over batches and initialisations.

    Not defined for features of another width than the teacher's, nor without labels: then `relation` alone.
    """
    distances = [
        distance(t.gradient, s.gradient)
        for t, s in zip(subject.teacher, subject.observed, strict=True)
        if t.gradient is not None and s.gradient is not None and t.gradient.shape == s.gradient.shape
    ]
    return -sum(distances) / len(distances) if distances else relation(subject)


def defined(subject: Subject) -> bool:
    """Whether the metric is defined for a candidate."""
    shapes = [[None if o.gradient is None else o.gradient.shape for o in side] for side in (subject.teacher, subject.observed)]
    return shapes[0] == shapes[1] and None not in shapes[0]


PROXY = Proxy("semantic", semantic)
