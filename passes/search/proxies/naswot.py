"""`naswot`: do activations tell samples apart? (Mellor et al., "NAS without training", ICML 2021, section 3.)"""

import numpy as np
from numpy.typing import NDArray

from compactor.passes.search.proxies.subject import WORST, Proxy, Subject

_CHUNK = 1 << 16


def log_determinant(codes: NDArray[np.uint8], samples: int) -> float:
    """``log |det K|``, K (N, N) counting the units whose activations have the same sign for two samples.

    ``codes``: (units, bytes), packed signs as in `Observation`. For ReLU these are the codes of the paper; other
    activations have none, so the sign of their input stands for them.
    """
    kernel = np.zeros((samples, samples))
    for start in range(0, len(codes), _CHUNK):
        signs = np.unpackbits(codes[start : start + _CHUNK], axis=1, count=samples).astype(np.float32) * 2 - 1
        kernel += signs.T @ signs
    kernel = (kernel + len(codes)) / 2
    sign, value = np.linalg.slogdet(kernel)
    return float(value) if sign > 0 else WORST


def naswot(subject: Subject) -> float:
    """The mean over batches and initialisations."""
    return sum(log_determinant(o.codes, len(o.gram)) for o in subject.observed) / len(subject.observed)


PROXY = Proxy("naswot", naswot, coded=True)
