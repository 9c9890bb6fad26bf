"""Quantization-aware training of a language model, loss by loss: ``python -m benchmarks.quantization.language``.

A small GPT-2 with 8192 tokens is trained on the text of SST-2 (`benchmarks.quantization.corpus`). It is its own float
student: with 8-bit activations and weights of ``--bits``, ``ptq`` is `quantize.ptq`, the others are `quantize.qat` with
the divergence by rank (``topk``), the plain one (``kl``), and the plain one to classes drawn from the teacher
(``draws``). All train for as many steps on the same blocks of a seed, without labels; states are chosen by agreement
with the teacher on ``dev``. Perplexity and calibration error are those on ``test``, as mean and spread over seeds.
"""

import argparse
import sys
from typing import Any

from benchmarks.quantization.studies import Study
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.passes.quantize.qat import QatConfig, QuantizationAwareTraining
from compactor.pipeline.passes import Pass

ROWS = ("ptq", "topk", "kl", "draws")


def quantizer(kind: str, bits: int, study: Study) -> Pass:
    """The pass of a row."""
    given = study.options
    shared: dict[str, Any] = {"bits": bits, "samples": given.samples}
    if kind == "ptq":
        return PostTrainingQuantization(PtqConfig(**shared))
    losses: dict[str, dict[str, Any]] = {
        "topk": {"loss": "topk", "k": given.k},
        "kl": {"loss": "kl"},
        "draws": {"loss": "kl", "draws": given.draws},
    }
    return QuantizationAwareTraining(QatConfig(**shared, **study.training, **losses[kind]))


def best(rows: dict[str, Any], bits: list[int]) -> dict[str, str]:
    """The row with the least mean perplexity, by precision."""
    found = {}
    for precision in (f"W{b}A8" for b in bits):
        means = {name.split()[0]: row["perplexity"] for name, row in rows.items() if name.endswith(precision)}
        found[precision] = min(means, key=means.__getitem__)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Train, quantize, compare, write ``results/quantization_language.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Study.add_options(parser, steps=150, lr=5e-4)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--bits", type=int, nargs="+", choices=(8, 4, 3), default=[4, 3])
    parser.add_argument("--k", type=int, default=50, help="classes that topk tells apart")
    parser.add_argument("--draws", type=int, default=50, help="classes drawn for each token")
    parser.add_argument("--samples", type=int, default=64, help="blocks that calibrate")
    options = parser.parse_args(arguments)
    study = Study("quantization_language", ("k", "draws", "samples"), options)
    rows = {
        name: study.row(name, quantizer(kind, bits, study), study.teacher)
        for bits in options.bits
        for kind in options.rows
        for name in [f"{kind} W{bits}A8"]
    }
    winners = best(rows, options.bits)
    print(winners, study.write(rows=rows, best=winners))
    return 0


if __name__ == "__main__":
    sys.exit(main())
