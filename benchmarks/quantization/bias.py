"""What a teacher's best classes alone teach a student: ``python -m benchmarks.quantization.bias``.

A student of half the width of the language model of `benchmarks.quantization.corpus`, sliced from it, is distilled at
temperature 1 without labels to: all logits (``full``); the k best classes scaled to a distribution (``naive``); these
and one bucket for all others (``bucket``); that and the divergence among the others (``topk``); classes drawn from the
teacher (``draws``). Naive targets are biased (sparse logit sampling, arXiv 2503.16870, section 3): their student is
surer than right. Perplexity and expected calibration error on ``test``, as mean and spread over seeds.
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmarks.quantization.studies import Study
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.search.importance import rank
from compactor.passes.search.ladder import candidates
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass
from compactor.training import Micro
from compactor.training.distillation import Term

ROWS = ("full", "naive", "bucket", "topk", "draws")


@dataclass(frozen=True)
class Renormalised:
    """The divergence from the teacher's ``k`` best classes, as if it knew no others: biased."""

    k: int

    def loss(self, found: Tensor, goal: Tensor, labels: Tensor | None, temperature: float, micro: Micro) -> Tensor:
        """T² · KL(renormalised teacher || student), mean over all but the last axis."""
        best = (goal.float() / temperature).topk(min(self.k, goal.shape[-1]))
        wanted = best.values.log_softmax(-1)
        known = (found.float() / temperature).log_softmax(-1).gather(-1, best.indices)
        return temperature**2 * (wanted.exp() * (wanted - known)).sum(-1).mean()


class NaiveDistillation(LogitsDistillation):
    """`distill.logits` on the ``k`` best classes alone."""

    def term(self) -> Term:
        """Renormalised, whatever the loss is called."""
        return Renormalised(self.config.k)


def distiller(kind: str, study: Study) -> Pass:
    """The pass of a row."""
    losses: dict[str, dict[str, Any]] = {
        "bucket": {"loss": "topk", "tail": 0.0},
        "topk": {"loss": "topk"},
        "draws": {"draws": study.options.draws},
    }
    config = LogitsConfig(**study.training, k=study.options.k, **losses.get(kind, {}))
    return NaiveDistillation(config) if kind == "naive" else LogitsDistillation(config)


def student(teacher: Program, width: float, ctx: PassContext) -> Program:
    """All blocks, and the same share of every axis, the residual one too."""
    space = space_of(teacher)
    importance = rank(teacher, space, ctx, samples=1, hidden=True, depth=False)
    chosen = next(candidates(space, importance, widths=[width], multiple=8))
    return slice_program(teacher, chosen.subnet)


def main(arguments: list[str] | None = None) -> int:
    """Train, distil, compare, write ``results/quantization_bias.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Study.add_options(parser, steps=300, lr=2e-3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--width", type=float, default=0.5, help="of the student, as a share of the teacher's")
    parser.add_argument("--k", type=int, default=12, help="best classes of the teacher that are known")
    parser.add_argument("--draws", type=int, default=50, help="classes drawn for each token")
    options = parser.parse_args(arguments)
    study = Study("quantization_bias", ("width", "k", "draws"), options)
    small = student(study.teacher, options.width, study.context)
    rows = {kind: study.row(kind, distiller(kind, study), small) for kind in options.rows}
    cost = small.cost()
    print(study.write(student={"parameters": cost.parameters, "macs": cost.macs}, rows=rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
