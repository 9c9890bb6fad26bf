"""What `prune.cofi` is asked for and what comes of it, ResNet-56 on CIFAR-10.

``python -m benchmarks.distillation.constraint``. The same training prunes to a latency of `host-cpu` and to several
sizes. Reported are the latency asked for, predicted and measured, all in float32; and how fast a student pruned to a
size is that is as accurate as the one pruned to the latency, interpolated between its neighbours. All students are
timed in turns. An interrupted run goes on where it was. Exit status 1 when a bar is missed.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import facts
from benchmarks.around import Like, Lines, context, in_turns, kept, resnet56
from compactor import scoring
from compactor.ir.program import Program
from compactor.passes.prune.cofi import CofiConfig, CofiPruning
from compactor.pipeline.context import PassContext

BARS = {"asked_predicted": 0.03, "predicted_measured": 0.15}
WORK = facts.ROOT / ".compactor" / "benchmarks" / "constraint"


def student(kind: str, ratio: float, ctx: PassContext, epochs: int) -> tuple[Program, dict[str, Any]]:
    """The student of a constraint, and its row."""
    config = CofiConfig(
        constraint=kind, speedup=ratio, margin=1.0, prune_epochs=epochs, epochs=epochs, views=2, layerwise=0.0
    )  # type: ignore[arg-type]
    found = CofiPruning(config).run(ctx.teacher, ctx)
    wanted = ("constraint", "unit", "asked", "achieved", "off_percent", "latency_ms", "parameters", "macs")
    made = {name: found.metrics[name] for name in wanted}
    accuracy = scoring.accuracy(found.program, ctx.data.test or ctx.data.dev)
    return found.program, {**made, "ratio": ratio, "test_accuracy": round(accuracy, 2)}


def verdict(latency: dict[str, Any], sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """Every bar's value and whether it is met."""
    measured = latency["measured_ms"]
    asked = max(abs(r["achieved"] / r["asked"] - 1) for r in (latency, *sizes))
    found: dict[str, Any] = {
        "asked_predicted": round(asked, 4),
        "predicted_measured": round(abs(latency["latency_ms"] / measured - 1), 4),
    }
    passed = {name: value <= BARS[name] for name, value in found.items()}
    ordered = sorted(sizes, key=lambda r: r["test_accuracy"])
    scores, times = ([r[key] for r in ordered] for key in ("test_accuracy", "measured_ms"))
    comparable = scores[0] <= latency["test_accuracy"] <= scores[-1]
    size_ms = round(float(np.interp(latency["test_accuracy"], scores, times)), 4)
    found["pruned_to_size_ms"] = size_ms if comparable else None
    passed["faster"] = comparable and measured < size_ms
    return {"values": found, "passed": passed}


def main(arguments: list[str] | None = None) -> int:
    """Prune, time, compare, write ``results/constraint.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=3.0, help="of the latency")
    parser.add_argument("--smaller", type=float, nargs="+", default=[2.0, 4.0, 8.0], help="the sizes")
    parser.add_argument("--epochs", type=int, default=4, help="of pruning, and again of fine-tuning")
    parser.add_argument("--samples", type=int, default=15000, help="of the training split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
    given = parser.parse_args(arguments)
    teacher, source = resnet56(given.samples, given.seed)
    target = Like("host-cpu", precisions=("float32",))
    work = given.work / f"{given.samples}-{given.epochs}-{given.seed}"
    ctx = context(teacher, source, target, work, given.seed, progress=Lines(60))
    programs, rows = {"teacher": ctx.apply(teacher, [("fold_batchnorm", {})])}, []
    for kind, ratio in (("latency", given.speedup), *(("size", r) for r in given.smaller)):
        program, row = kept(
            ctx.workspace / f"{kind}-{ratio:g}",
            lambda folder, kind=kind, ratio=ratio: student(kind, ratio, replace(ctx, workspace=folder), given.epochs),
        )
        rows.append(row)
        programs[f"{kind} {ratio:g}"] = ctx.apply(program, [("fold_batchnorm", {})])
        print(row, flush=True)
    whole, *times = in_turns(programs, ctx).values()
    rows = [{**row, "measured_ms": ms} for row, ms in zip(rows, times, strict=True)]
    result: dict[str, Any] = {
        **facts.facts(given.seed), "bars": BARS, "epochs": given.epochs, "samples": given.samples,
        "teacher_ms": whole, "latency": rows[0], "sizes": rows[1:], **verdict(rows[0], rows[1:]),
    }  # fmt: skip
    print(f"{result['values']} {result['passed']}\nwritten to {facts.write('constraint', result)}")
    return int(not all(result["passed"].values()))


if __name__ == "__main__":
    sys.exit(main())
