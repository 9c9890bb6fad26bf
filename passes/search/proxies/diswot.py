"""`diswot`: the sum of the semantic and the relation metric (DisWOT, arXiv 2303.15678, eq. 4)."""

from compactor.passes.search.proxies.relation import relation
from compactor.passes.search.proxies.semantic import defined, semantic
from compactor.passes.search.proxies.subject import Proxy, Subject


def diswot(subject: Subject) -> float:
    """``semantic + relation``; `relation` alone where the semantic metric is not defined."""
    return relation(subject) + (semantic(subject) if defined(subject) else 0.0)


PROXY = Proxy("diswot", diswot)
