"""One search of `search.diswot`: what it starts from, what it scores with, and what comes of it."""

import os
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from compactor.data import Batch
from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.ir.space import SearchSpace
from compactor.ir.subnet import Subnet
from compactor.passes.search import proxies
from compactor.passes.search.evolution import Evolution, Member
from compactor.passes.search.genes import Genes, Genome
from compactor.passes.search.goal import Choice, Goal, Option, RangeConfig
from compactor.passes.search.importance import rank
from compactor.passes.search.pareto import front
from compactor.passes.search.proxies.head import find_head
from compactor.passes.search.record import FILE, Record, scores
from compactor.passes.search.uniform import uniform_options
from compactor.passes.search.workers import one_thread, scorers
from compactor.pipeline.context import PassContext

_CANDIDATES = {"quick": 150, "balanced": 1000, "max": 3000}
_MACS = {"quick": 3e12, "balanced": 20e12, "max": 60e12}
"""Multiply-accumulates that scoring may take; what is left of large teachers' candidates is at least `_FEWEST`."""
_FEWEST = 72


class DiswotConfig(RangeConfig):
    """Options of `search.diswot`."""

    score: str = Field("default", description="proxies whose ranks are summed, like relation+macs")
    candidates: int | None = Field(None, ge=1, description="how many are scored; by effort if absent")
    wider: float = Field(1.0, ge=1, le=8, description="largest width, in widths of the teacher; 1: never wider")
    population: int = Field(36, ge=2, description="candidates that are alive")
    tournament: int = Field(8, ge=1, description="candidates of which the best has a child")
    batches: int = Field(1, ge=1, description="batches that candidates are scored on")
    samples: int = Field(64, ge=2, description="calibration samples per batch, and for ranking blocks")
    inits: int = Field(2, ge=1, description="random initialisations that scores are averaged over")
    workers: int | None = Field(None, ge=1, description="processes; as many as cores if absent. The result is the same")

    @field_validator("score")
    @classmethod
    def _known(cls, score: str) -> str:
        proxies.parse(score)
        return score


class Study:
    """One search: its goal, its genome, and uniform candidates to start from and to fall back on."""

    def __init__(self, config: DiswotConfig, program: Program, space: SearchSpace, ctx: PassContext) -> None:
        self.config, self.program, self.space, self.ctx = config, program, space, ctx
        self.goal = Goal(program, config, ctx)
        importance = rank(program, space, ctx, samples=config.samples, hidden=config.hidden)
        self.genome = Genome.of(
            space, importance, smallest=config.smallest, multiple=config.multiple, wider=config.wider
        )
        _, self.uniform = uniform_options(space, importance, ctx, smallest=config.smallest, multiple=config.multiple)
        self.base = self.goal.settle(self.uniform)
        self.limit = self.base.goal
        self._options: dict[Genes, Option] = {}

    def record(self) -> Record:
        """All candidates, those of a search that was stopped included."""
        header = self._header()
        known = self._known(header)
        names = [p.name for p in proxies.parse(self.config.score)]
        evolution = Evolution(self._candidates(), self.ctx.seed, self.config.population, self.config.tournament)

        def save(members: Sequence[Member]) -> None:
            Record(header, self.genome, tuple(members)).write(self.ctx.workspace)
            self.ctx.progress.update(len(members), evolution.candidates, "candidates scored")

        with scorers(self.program, self._setting(), names, self._workers(names)) as score:
            members = evolution.run(
                self.genome,
                self._fits,
                lambda genes: score([(self._option(g).subnet, self._costs(g)) for g in genes]),
                first=self._first(),
                history=known,
                save=save,
            )
        return Record(header, self.genome, tuple(members))

    def settle(self, record: Record) -> Choice:
        """The best candidate that meets the goal when measured; a uniform one where none does."""
        return self.goal.settle(
            [*(self._option(m.genes) for _, m in record.preferred()), *self.uniform], among=self.uniform
        )

    def archive(self, record: Record, chosen: Subnet) -> list[dict[str, Any]]:
        """Candidates that no other beats in score, latency, size and MACs at once, the best score first."""
        ranks = scores(record.members)
        rows = [self._row(i, m, r, chosen) for i, (m, r) in enumerate(zip(record.members, ranks, strict=True))]
        kept = front([(r["score"], -r["latency_ms"], -r["bytes"], -r["macs"]) for r in rows])
        return sorted((rows[i] for i in kept), key=lambda r: (-r["score"], r["candidate"]))

    def _row(self, number: int, member: Member, score: float, chosen: Subnet) -> dict[str, Any]:
        option = self._option(member.genes)
        latency, precision = self.goal.ruler.fastest(option.kernels)
        cost = option.cost
        return {
            "candidate": number, "chosen": option.subnet == chosen, "score": round(score, 6),
            "latency_ms": round(latency, 4),
            "precision": precision, "bytes": cost.bytes, "macs": cost.macs, "parameters": cost.parameters,
        }  # fmt: skip

    def _header(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json", exclude={"workers", "candidates"})
        return {
            "teacher": self.program.fingerprint, "data": self.ctx.data.fingerprint, "target": self.ctx.target.name,
            "seed": self.ctx.seed, "goal_ms": self.limit, "score": self.config.score, "config": config,
            "proxies": [p.name for p in proxies.parse(self.config.score)],
        }  # fmt: skip

    def _known(self, header: dict[str, Any]) -> tuple[Member, ...]:
        """What a search that was stopped has scored."""
        if not (self.ctx.workspace / FILE).exists():
            return ()
        found = Record.read(self.ctx.workspace)
        same = found.header == header and found.genome.to_dict() == self.genome.to_dict()
        return found.members if same else ()

    def _fits(self, genes: Genes) -> bool:
        option = self._option(genes)
        return self.goal.ruler.fastest(option.kernels)[0] <= self.limit and self.goal.fits_size(option)

    def _option(self, genes: Genes) -> Option:
        if genes not in self._options:
            self._options[genes] = Option(self.space, self.space.check(self.genome.subnet(genes)))
        return self._options[genes]

    def _costs(self, genes: Genes) -> proxies.Costs:
        option = self._option(genes)
        latency, _ = self.goal.ruler.fastest(option.kernels)
        return proxies.Costs(option.cost.parameters, option.cost.macs, latency)

    def _first(self) -> list[Genes]:
        """The uniform choice: no search ends below the baseline by its own score."""
        return [self.genome.genes(self.base.option.subnet)]

    def _candidates(self) -> int:
        if self.config.candidates is not None:
            return int(self.config.candidates)
        looks = self.config.batches * self.config.inits * self.config.samples
        return max(_FEWEST, min(_CANDIDATES[self.ctx.effort], int(_MACS[self.ctx.effort] / (looks * self._macs()))))

    def _macs(self) -> int:
        """Of a typical candidate: the uniform choice."""
        return max(self.base.option.cost.macs, 1)

    def _workers(self, names: Sequence[str]) -> int:
        if not any(proxies.PROXIES[name].observes for name in names):
            return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return int(self.config.workers) if self.config.workers is not None else cores

    def _setting(self) -> proxies.Setting:
        samples = min(self.config.samples, len(self.ctx.data.train) // self.config.batches)
        if samples < 2:
            raise InputError(
                f"{len(self.ctx.data.train)} training samples do not fill {self.config.batches} batches of at least"
                " two: scores compare samples with one another",
                "give more data, or ask for fewer batches",
            )
        batch = self.ctx.data.calibration(self.config.batches * samples, self.ctx.seed)
        labels = batch.labels if self._width_is_fixed() else None
        parts = [slice(i, i + samples) for i in range(0, len(batch.inputs[0]) - samples + 1, samples)]
        batches = [Batch(tuple(x[p] for x in batch.inputs), None if labels is None else labels[p]) for p in parts]
        with one_thread():
            return proxies.Setting.of(self.program, batches, range(self.config.inits))

    def _width_is_fixed(self) -> bool:
        """Whether all candidates have features as wide as the teacher's: else the semantic metric is defined for some
        only, and scores could not be compared."""
        head = find_head(self.program)
        weights = [str(n.target) for n in head.logits.all_input_nodes if n.op == "get_attr"] if head.logits else []
        free = {
            (tensor, dim) for g in self.space.groups if g.name in self.genome.orders for tensor, dim, _ in g.members
        }
        return not any((weight, 1) in free for weight in weights)
