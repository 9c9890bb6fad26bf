"""`swap`: how many distinct patterns do units show over the samples? (Peng et al., SWAP-NAS, ICLR 2024, section 3.)"""

import numpy as np
from numpy.typing import NDArray

from compactor.passes.search.proxies.subject import Proxy, Subject

SAMPLES = 32
"""Samples that make a pattern: with many, every unit has its own and only units are counted."""


def distinct(codes: NDArray[np.uint8], samples: int) -> int:
    """The number of distinct sample-wise patterns among the units. ``codes``: (units, bytes) as in `Observation`."""
    used = min(samples, SAMPLES)
    words = np.zeros((len(codes), -(-used // 64) * 8), np.uint8)
    words[:, : -(-used // 8)] = codes[:, : -(-used // 8)]
    if used % 8:
        words[:, used // 8] &= 0xFF << (8 - used % 8) & 0xFF
    patterns = words.view(np.uint64)
    return len(np.unique(patterns[:, 0]) if patterns.shape[1] == 1 else np.unique(patterns, axis=0))


def swap(subject: Subject) -> float:
    """The mean over batches and initialisations."""
    return sum(distinct(o.codes, len(o.gram)) for o in subject.observed) / len(subject.observed)


PROXY = Proxy("swap", swap, coded=True)
