"""What each kind of distillation adds, MiniLM on SST-2 at one high ratio.

``python -m benchmarks.distillation.ablation``. Three students are predicted to be ``--speedup`` times faster in float32
than the teacher: ``uniform`` is sliced evenly and left as it is, ``one-shot`` is pruned and reconstructed without
training, ``cofi`` is pruned and fine-tuned against the logits. The other rows train the uniform student: ``labels``
without the teacher, the others against it, ``last`` on its logits and the hidden state of its last layer. All take as
many steps of the same batch. Rows with ``variants`` see samples that only the teacher labels beside the real ones, so
fewer passes over each. The weights are chosen on ``dev``; the accuracy on ``test`` is reported, for every seed and as a
mean, and the latency in float32, timed in turns with the teacher's.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data, facts
from benchmarks.around import context, in_turns, kept, predicted
from compactor import frontend, scoring
from compactor.ir.program import Program
from compactor.passes.distill.layerwise import LayerwiseConfig, LayerwiseDistillation
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.distill.ted import TaskAwareDistillation, TedConfig
from compactor.passes.prune.cofi import CofiConfig, CofiPruning
from compactor.passes.prune.oneshot import OneshotConfig, OneshotPruning
from compactor.passes.search.uniform import UniformConfig, UniformSearch
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassResult
from compactor.pipeline.request import open_data

WORK = facts.ROOT / ".compactor" / "benchmarks" / "ablation"
COPIES = 3
ROWS = (
    "uniform", "one-shot", "labels", "logits", "layerwise", "last", "ted", "logits+variants", "layerwise+variants",
    "last+variants", "cofi",
)  # fmt: skip
PRUNED = ("one-shot", "cofi")
DISTILLED = {
    "logits": (LogitsDistillation, LogitsConfig),
    "layerwise": (LayerwiseDistillation, LayerwiseConfig),
    "last": (LayerwiseDistillation, partial(LayerwiseConfig, layers=1, logits=0.5, hidden=0.5)),
    "ted": (TaskAwareDistillation, TedConfig),
}


def pruner(row: str, given: argparse.Namespace) -> Pass:
    """What makes the structure of a row from the teacher."""
    asked: dict[str, Any] = {"speedup": given.speedup, "margin": 1.0, "hidden": given.hidden}
    if row == "one-shot":
        return OneshotPruning(OneshotConfig(**asked))
    if row == "cofi":
        half = given.epochs / 2
        training = {"prune_epochs": round(half), "epochs": round(half), "batch": given.batch, "variants": 0}
        return CofiPruning(CofiConfig(**asked, **training, layerwise=0.0))
    return UniformSearch(UniformConfig(**asked))


def distiller(row: str, given: argparse.Namespace) -> Pass | None:
    """What trains the student of a row; None where nothing does, or the pruner did."""
    kind, _, extra = row.partition("+")
    copies = COPIES if extra else 0
    shared: dict[str, Any] = {
        "epochs": max(1, given.epochs // (1 + copies)), "batch": given.batch, "variants": copies,
    }  # fmt: skip
    if kind == "labels":
        return LogitsDistillation(LogitsConfig(**shared, label_weight=1.0))
    if kind not in DISTILLED:
        return None
    step, config = DISTILLED[kind]
    return step(config(**shared))


def train(row: str, sliced: PassResult, ctx: PassContext, given: argparse.Namespace) -> tuple[Program, dict[str, Any]]:
    """One row with one seed; ``sliced`` is the uniform student."""
    started = time.monotonic()
    made = pruner(row, given).run(ctx.teacher, ctx) if row in PRUNED else sliced
    steps = [made.metrics[stage]["steps"] for stage in ("pruning", "finetuning") if stage in made.metrics]
    step, student = distiller(row, given), made.program
    if step:
        result = step.run(student, ctx)
        student, steps = result.program, [result.metrics["steps"]]
    found = {
        "dev_accuracy": round(scoring.accuracy(student, ctx.data.dev), 2),
        "test_accuracy": round(scoring.accuracy(student, ctx.data.test or ctx.data.dev), 2),
        "steps": sum(steps),
        "macs": student.cost().macs,
        "predicted_ms": round(min(ctx.target.predict(student.kernels(), p).p50 for p in ctx.target.precisions), 4),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(f"{row}, seed {ctx.seed}: {found}", flush=True)
    return student, found


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write ``results/distillation.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--speedup", type=float, default=6.0)
    parser.add_argument("--hidden", action="store_true", help="let the residual axis shrink too")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=20000, help="samples of the training split")
    parser.add_argument("--samples", type=int, help="of every split, for a trial; nothing is stored")
    parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
    given = parser.parse_args(arguments)
    teacher = canonical(frontend.load(data.shared() / "teachers" / "sst2-minilm"))
    source = data.shortened(open_data(data.shared() / "data" / "sst2", teacher, 0), given.samples)
    source = replace(source, train=data.drawn(source.train, given.train))
    settings = {key: getattr(given, key) for key in ("speedup", "hidden", "epochs", "batch", "train")}
    work = given.work / "-".join(map(str, (*settings.values(), given.samples)))
    ctx = context(teacher, source, predicted(precisions=("float32",)), work)
    sliced = pruner("uniform", given).run(teacher, ctx)
    students, rows = {"teacher": teacher}, {}
    for row in given.rows:
        made = [
            kept(
                ctx.workspace / f"{row}-{seed}",
                lambda folder, row=row, seed=seed: train(row, sliced, replace(ctx, seed=seed, workspace=folder), given),
            )
            for seed in given.seeds
        ]
        (students[row], *_), found = zip(*made, strict=True)
        mean = statistics.fmean(f["test_accuracy"] for f in found)
        rows[row] = {"test_accuracy": round(mean, 2), "seeds": found}
    ms = in_turns(students, ctx)
    for row in rows:
        rows[row] |= {"latency_ms": ms[row], "faster": round(ms["teacher"] / ms[row], 2)}
    score = scoring.accuracy(teacher, source.test or source.dev)
    result: dict[str, Any] = {
        **facts.facts(0), **settings,
        "teacher": {"test_accuracy": round(score, 2), "macs": teacher.cost().macs, "latency_ms": ms["teacher"]},
        "rows": rows,
    }  # fmt: skip
    if given.samples is None:
        print(f"written to {facts.write('distillation', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
