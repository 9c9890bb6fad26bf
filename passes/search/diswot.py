"""`search.diswot`: evolution of subnets under a latency limit, scored without training.

DisWOT (Dong et al., CVPR 2023, arXiv 2303.15678) on the search space of the teacher itself. Ours: the limit is latency
predicted for the target and holds for every candidate, the score is a sum of ranks of several proxies, and the student
keeps the most important weights of the teacher instead of starting anew.
"""

from dataclasses import replace
from typing import ClassVar

from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.space import space_of
from compactor.passes.search.study import DiswotConfig, Study
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult

_SHOWN = 24
"""Candidates of the archive in the metrics; all are in ``search.json``."""


class DiswotSearch(Pass):
    """Evolve candidates that meet the goal, keep the one with the best score of an untrained network.

    No candidate is trained and no label of `test` is seen. Raises `UsageError` with the closest reachable latency when
    no candidate meets the goal. ``search.json`` in the workspace has every candidate; a search that was stopped goes
    on from it.
    """

    name: ClassVar[str] = "search.diswot"
    version: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)
    before: ClassVar[tuple[str, ...]] = ("distill", "fold_batchnorm", "quantize")
    Config: ClassVar[type[PassConfig]] = DiswotConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Search, then slice the Program to the winner."""
        space = space_of(program)
        verify_rules(space)
        study = Study(self.config, program, space, ctx)
        record = study.record()
        choice = study.settle(record)
        archive = study.archive(record, choice.option.subnet)
        metrics = choice.metrics() | {"candidates": len(record.members), "score": record.header["score"]}
        replace(record, summary={**metrics, "archive": archive}).write(ctx.workspace)
        metrics["archive"] = archive[:_SHOWN]
        return PassResult(choice.student, choice.student is not program, metrics)
