"""`relation`: do student and teacher, both untrained, find the same samples alike? (DisWOT, arXiv 2303.15678, eq. 3.)"""

from torch import Tensor

from compactor.passes.search.proxies.subject import Proxy, Subject


def distance(teacher: Tensor, student: Tensor) -> float:
    """``||G_T - G_S||_F^2 / N^2`` of two (N, N) Gram matrices with rows of length one: from 0 to 4 / N."""
    return float((teacher - student).square().sum()) / teacher.shape[0] ** 2


def relation(subject: Subject) -> float:
    """The mean of ``-distance`` over batches and initialisations. Widths and resolutions may differ."""
    pairs = list(zip(subject.teacher, subject.observed, strict=True))
    return -sum(distance(t.gram, s.gram) for t, s in pairs) / len(pairs)


PROXY = Proxy("relation", relation)
