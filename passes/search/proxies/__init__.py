"""Scores of untrained candidates, and their combination: one proxy per file, all listed here."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from compactor.errors import UsageError
from compactor.passes.search.proxies import costs, diswot, meco, naswot, relation, semantic, swap
from compactor.passes.search.proxies.subject import WORST, Costs, Proxy, Setting, Subject

__all__ = ["DEFAULT", "PROXIES", "Costs", "Proxy", "Setting", "Subject", "combined", "parse", "values"]

PROXIES: Mapping[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        relation.PROXY, semantic.PROXY, diswot.PROXY, naswot.PROXY, swap.PROXY, meco.PROXY,
        costs.PARAMS, costs.MACS, costs.LATENCY,
    )
}  # fmt: skip

DEFAULT = "meco+relation+params+macs"
"""Among the best on the half of NAS-Bench-201 that ``benchmarks.search.nasbench --tune`` looks at. Parameters and
arithmetic rank alike there; where widths and depths differ they do not, and evolution outwits either alone."""


def parse(text: str) -> tuple[Proxy, ...]:
    """The proxies of a score such as ``relation+macs``. Raises `UsageError` for an unknown one."""
    names = [name.strip() for name in (DEFAULT if text == "default" else text).split("+")]
    for name in names:
        if name not in PROXIES:
            close = get_close_matches(name, PROXIES, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"known: {', '.join(PROXIES)}; join several with +"
            raise UsageError(f"unknown score {name!r} in {text!r}", remedy)
    return tuple(PROXIES[name] for name in dict.fromkeys(names))


def values(subject: Subject, proxies: Sequence[Proxy]) -> tuple[float, ...]:
    """The scores of a candidate, one per proxy; a network whose numbers overflow has the worst."""
    found = (proxy.score(subject) for proxy in proxies)
    return tuple(value if np.isfinite(value) else WORST for value in found)


def combined(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the proxies of each candidate's rank among all, from 0 (worst) to 1 (best); ties share a rank.

    ``table``: (candidates, proxies). No weights and no scales: proxies count alike whatever their units are.
    """
    from scipy.stats import rankdata

    ranks = rankdata(table, axis=0) - 1
    scores: NDArray[np.float64] = ranks.mean(1) / max(len(table) - 1, 1)
    return scores
