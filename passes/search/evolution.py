"""Ageing evolution (Real et al., AAAI 2019; DisWOT's settings): the oldest die, not the worst."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compactor.passes.search.genes import Genes, Genome
from compactor.passes.search.proxies import combined

_DRAWS = 50


@dataclass(frozen=True)
class Member:
    """A candidate and its scores, one per proxy."""

    genes: Genes
    values: tuple[float, ...]


Fits = Callable[[Genes], bool]
Evaluate = Callable[[Sequence[Genes]], Sequence[tuple[float, ...]]]
Save = Callable[[Sequence[Member]], None]


@dataclass(frozen=True)
class Evolution:
    """Settings; DisWOT has a population of 36, tournaments of 8 and one mutation per child.

    ``brood`` children are made before any of them is scored, whatever the number of workers, so that this number does
    not change the result.
    """

    candidates: int
    seed: int = 0
    population: int = 36
    tournament: int = 8
    brood: int = 8

    def run(
        self,
        genome: Genome,
        fits: Fits,
        evaluate: Evaluate,
        *,
        first: Sequence[Genes] = (),
        history: Sequence[Member] = (),
        save: Save = lambda members: None,
    ) -> list[Member]:
        """All members in the order in which they were made; the population is the last of them.

        Every one ``fits``. ``first`` are in the first population if they fit. With the ``history`` of a run that was
        stopped, it goes on to the same end: each brood is made from a seed of its own, and nothing else is remembered.
        Ends early when no child that is new and fits is found.
        """
        members = list(history)
        if not members:
            members = self._evaluated(self._founders(genome, fits, first), evaluate)
            save(members)
        while 0 < len(members) < self.candidates:
            brood = self._children(genome, fits, members)
            if not brood:
                break
            members += self._evaluated(brood[: self.candidates - len(members)], evaluate)
            save(members)
        return members

    def _founders(self, genome: Genome, fits: Fits, first: Sequence[Genes]) -> list[Genes]:
        rng = np.random.default_rng([self.seed, 0])
        found = dict.fromkeys(g for g in first if fits(g))
        for _ in range(4 * self.population):
            if len(found) >= min(self.population, self.candidates):
                break
            genes = genome.sample(rng, fits)
            if genes is None:
                break
            found[genes] = None
        return list(found)

    def _children(self, genome: Genome, fits: Fits, members: Sequence[Member]) -> list[Genes]:
        rng = np.random.default_rng([self.seed, len(members)])
        scores = combined(np.array([m.values for m in members]))
        alive = range(max(0, len(members) - self.population), len(members))
        seen = {m.genes for m in members}
        brood: list[Genes] = []
        for _ in range(_DRAWS * self.brood):
            contenders = rng.choice(alive, min(self.tournament, len(alive)), replace=False)
            parent = members[max(contenders.tolist(), key=lambda i: (scores[i], i))]
            child = genome.mutated(parent.genes, rng)
            if child is not None and child not in seen and fits(child):
                seen.add(child)
                brood.append(child)
                if len(brood) == self.brood:
                    break
        return brood

    @staticmethod
    def _evaluated(genes: Sequence[Genes], evaluate: Evaluate) -> list[Member]:
        return [Member(g, tuple(v)) for g, v in zip(genes, evaluate(genes), strict=True)]
