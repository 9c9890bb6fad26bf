"""A candidate as proxies see it, and what a proxy is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from compactor.data import Batch
from compactor.errors import InputError, UsageError
from compactor.ir.program import Program
from compactor.passes.search.proxies.observation import Observation, observe

WORST = -1e30
"""The score of a network whose numbers overflow."""


@dataclass(frozen=True)
class Costs:
    """``parameters``, ``macs`` at batch 1 and ``latency``, milliseconds on the target."""

    parameters: int
    macs: int
    latency: float


@dataclass(frozen=True)
class Subject:
    """A candidate: its costs, and what was observed of it beside the teacher, per batch and initialisation."""

    costs: Costs
    observed: tuple[Observation, ...] = ()
    teacher: tuple[Observation, ...] = ()


@dataclass(frozen=True)
class Proxy:
    """A score without training, higher is better.

    ``observes``: it needs forward passes; ``needs``: what an `Observation` holds only when asked.
    """

    name: str
    score: Callable[[Subject], float]
    observes: bool = True
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Setting:
    """What all candidates are looked at with: batches, seeds of initialisations, and the teacher's observations."""

    batches: tuple[Batch, ...]
    seeds: tuple[int, ...]
    teacher: tuple[Observation, ...]

    @staticmethod
    def of(teacher: Program, batches: Sequence[Batch], seeds: Iterable[int]) -> "Setting":
        """The setting with the teacher observed, once for all.

        Raises `UsageError` without a batch or seed, `InputError` when the teacher's features overflow.
        """
        seeds = tuple(seeds)
        if not batches or not seeds:
            raise UsageError("a setting without batches or initialisations shows nothing", "give at least one of each")
        observed = _observed(teacher, batches, seeds, frozenset())
        if not all(o.gram.isfinite().all() for o in observed):
            raise InputError(
                "the teacher's features hold NaN or infinite values at random weights: nothing can be compared",
                "check the data; a network without norms may overflow: search with --score macs",
            )
        return Setting(tuple(batches), seeds, observed)

    def subject(self, program: Program, costs: Costs, proxies: Iterable[Proxy]) -> Subject:
        """The candidate as these proxies need it."""
        proxies = tuple(proxies)
        if not any(p.observes for p in proxies):
            return Subject(costs)
        needs = frozenset[str]().union(*(p.needs for p in proxies))
        return Subject(costs, _observed(program, self.batches, self.seeds, needs), self.teacher)


def _observed(
    program: Program, batches: Sequence[Batch], seeds: Sequence[int], needs: frozenset[str]
) -> tuple[Observation, ...]:
    return tuple(observe(program, batch, seed, needs) for batch in batches for seed in seeds)
