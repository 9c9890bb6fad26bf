"""What profiles say of the parts of models, on the scale of the models' latencies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from compactor.target import Part

Floats = NDArray[np.float64]
_LEAST = 0.2
"""What share of a profiled time is left at least when the cost of timing is taken off."""
_TRUSTED, _SLOWED = 2.0, 1.1
"""How many times the latency a profile may add up to, and the other way round: disturbances only ever slow down.

Beyond the first the profile tells nothing, beyond the second it is the latency that is doubted.
"""


class Partial(NamedTuple):
    """Microseconds of some kernels, by number, of a network, by number."""

    network: int
    kernels: tuple[int, ...]
    us: float


def partial_sums(us: Floats, profiled: Sequence[Sequence[Part]]) -> list[Partial]:
    """The parts of models that take ``us`` microseconds, scaled so that they and one call add up to that.

    Timing a node costs, or hides, about the same for every node, and so does a call: both are fitted to all models.
    """
    numbers = [i for i, parts in enumerate(profiled) if sum(p.us for p in parts) > 0]
    times = [np.array([p.us for p in profiled[i]]) for i in numbers]
    nodes = [np.array([p.nodes for p in profiled[i]]) for i in numbers]
    if not numbers:
        return []
    call, node = _costs(us[numbers], times, nodes)
    found = []
    for i, own, count in zip(numbers, times, nodes, strict=True):
        plain = _without(own, count, node)
        factor = max(us[i] - call, _LEAST * us[i]) / plain.sum()
        if factor > 1 / _TRUSTED:
            factor = min(factor, _SLOWED)
            found += [
                Partial(i, part.kernels, float(t)) for part, t in zip(profiled[i], plain * factor, strict=True) if t > 0
            ]
    return found


def _costs(us: Floats, times: Sequence[Floats], nodes: Sequence[NDArray[np.intp]]) -> tuple[float, float]:
    """Microseconds of a call, and those that a profile adds to every node, under which the sums fit best."""

    def off(x: Floats) -> Floats:
        sums = [_without(own, count, x[1]).sum() for own, count in zip(times, nodes, strict=True)]
        gap: Floats = np.log(us) - np.log(np.array(sums) + x[0])
        return gap

    found = least_squares(off, (10.0, 0.0), bounds=((0.0, -5.0), (500.0, 20.0)), loss="soft_l1", f_scale=0.05)
    return float(found.x[0]), float(found.x[1])


def _without(times: Floats, nodes: NDArray[np.intp], cost: float) -> Floats:
    return np.maximum(times - cost * nodes, _LEAST * times)
