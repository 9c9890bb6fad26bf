"""What each kind of distillation adds, MiniLM on SST-2 at one high ratio.

``python -m benchmarks.distillation.ablation``. `search.uniform` slices the teacher once, to its own predicted latency
over ``--speedup``; every row trains this same student with as many steps of the same batch. ``none`` is the slice
itself. Rows with ``variants`` see samples that only the teacher labels beside the real ones, so fewer passes over each.
The weights are chosen on ``dev``; the accuracy on ``test`` is reported, for every seed and as a mean.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import data, facts
from benchmarks.search.autodistil import Lines, context
from compactor import frontend, scoring
from compactor.ir.program import Program
from compactor.passes.distill.layerwise import LayerwiseConfig, LayerwiseDistillation
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.distill.ted import TaskAwareDistillation, TedConfig
from compactor.passes.search.uniform import UniformConfig, UniformSearch
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass
from compactor.pipeline.request import open_data

WORK = facts.ROOT / ".compactor" / "benchmarks" / "ablation"
COPIES = 3
ROWS = ("none", "logits", "layerwise", "ted", "logits+variants", "layerwise+variants")


def distiller(row: str, epochs: int, batch: int) -> Pass | None:
    """The pass of a row; all take the same number of steps."""
    kind, _, extra = row.partition("+")
    copies = COPIES if extra else 0
    shared: dict[str, Any] = {"epochs": max(1, epochs // (1 + copies)), "batch": batch, "variants": copies}
    if kind == "logits":
        return LogitsDistillation(LogitsConfig(**shared))
    if kind == "layerwise":
        return LayerwiseDistillation(LayerwiseConfig(**shared))
    return TaskAwareDistillation(TedConfig(**shared)) if kind == "ted" else None


def train(row: str, student: Program, ctx: PassContext, epochs: int, batch: int) -> dict[str, Any]:
    """One row with one seed."""
    started = time.monotonic()
    ctx.workspace.mkdir(parents=True, exist_ok=True)
    step = distiller(row, epochs, batch)
    result = step.run(student, ctx) if step else None
    trained = result.program if result else student
    found = {
        "dev_accuracy": round(scoring.accuracy(trained, ctx.data.dev), 2),
        "test_accuracy": round(scoring.accuracy(trained, ctx.data.test or ctx.data.dev), 2),
        "steps": result.metrics["steps"] if result else 0,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(f"{row}, seed {ctx.seed}: {found}", flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write ``results/distillation.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--speedup", type=float, default=8.0)
    parser.add_argument("--hidden", action="store_true", help="let the residual axis shrink too")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, help="of every split, for a trial; nothing is stored")
    parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
    given = parser.parse_args(arguments)
    teacher = canonical(frontend.load(data.shared() / "teachers" / "sst2-minilm"))
    source = data.shortened(open_data(data.shared() / "data" / "sst2", teacher, 0), given.samples)
    ctx = context(teacher, source, given.work, 0, Lines())
    config = UniformConfig(speedup=given.speedup, margin=1.0, hidden=given.hidden)
    student = UniformSearch(config).run(teacher, ctx).program
    score = scoring.accuracy(teacher, source.test or source.dev)
    whole, sliced = teacher.cost(), student.cost()
    result: dict[str, Any] = {
        **facts.facts(0), "speedup": given.speedup, "hidden": given.hidden,
        "epochs": given.epochs, "batch": given.batch,
        "teacher": {"test_accuracy": round(score, 2), "macs": whole.macs},
        "student": {"macs": sliced.macs, "parameters": sliced.parameters}, "rows": {},
    }  # fmt: skip
    for row in given.rows:
        around = [replace(ctx, seed=seed, workspace=given.work / f"{row}-{seed}") for seed in given.seeds]
        found = [train(row, student, each, given.epochs, given.batch) for each in around]
        mean = statistics.fmean(f["test_accuracy"] for f in found)
        result["rows"][row] = {"test_accuracy": round(mean, 2), "seeds": found}
    if given.samples is None:
        print(f"written to {facts.write('distillation', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
