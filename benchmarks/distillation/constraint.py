"""What `prune.cofi` is asked for and what comes of it, ResNet-56 on CIFAR-10.

``python -m benchmarks.distillation.constraint``. The same training prunes to a latency of `host-cpu`, twice, and to
several sizes. ``latency`` is what a build would do: of ResNet-56 it removes blocks alone, so latency comes in steps of
a block. ``units`` gates units too, to see how near gates come to what was asked. Reported are the latency
asked for, predicted and measured, all in float32; and how fast a student pruned to a size is that is as accurate as
``latency``, interpolated between its neighbours. All students are timed in turns. An interrupted run goes on where it
was. Exit status 1 when a bar is missed.
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
Asked = tuple[str, float, bool | None]
"""Constraint, ratio, width."""
WORK = facts.ROOT / ".compactor" / "benchmarks" / "constraint"


def student(
    kind: str, ratio: float, width: bool | None, ctx: PassContext, epochs: int
) -> tuple[Program, dict[str, Any]]:
    """The student of a constraint, and its row."""
    config = CofiConfig(
        constraint=kind, speedup=ratio, margin=1.0, rounds=8, width=width,
        prune_epochs=epochs, epochs=epochs, views=2, layerwise=0.0,
    )  # type: ignore[arg-type]  # fmt: skip
    found = CofiPruning(config).run(ctx.teacher, ctx)
    wanted = ("constraint", "unit", "asked", "achieved", "off_percent", "latency_ms", "parameters", "macs")
    made = {name: found.metrics[name] for name in wanted}
    accuracy = scoring.accuracy(found.program, ctx.data.test or ctx.data.dev)
    return found.program, {**made, "ratio": ratio, "test_accuracy": round(accuracy, 2)}


def verdict(latency: dict[str, Any], units: dict[str, Any], sizes: list[dict[str, Any]]) -> dict[str, Any]:
    """Every bar's value and whether it is met; ``asked_predicted_units`` is without the student of whole blocks."""
    measured = latency["measured_ms"]
    found: dict[str, Any] = {
        "asked_predicted": _off(latency, units, *sizes),
        "predicted_measured": round(max(abs(r["latency_ms"] / r["measured_ms"] - 1) for r in (latency, units)), 4),
    }
    passed = {name: value <= BARS[name] for name, value in found.items()}
    found["asked_predicted_units"] = _off(units, *sizes)
    ordered = sorted(sizes, key=lambda r: r["test_accuracy"])
    scores, times = ([r[key] for r in ordered] for key in ("test_accuracy", "measured_ms"))
    comparable = scores[0] <= latency["test_accuracy"] <= scores[-1]
    size_ms = round(float(np.interp(latency["test_accuracy"], scores, times)), 4)
    found["pruned_to_size_ms"] = size_ms if comparable else None
    passed["faster"] = comparable and measured < size_ms
    return {"values": found, "passed": passed}


def _off(*rows: dict[str, Any]) -> float:
    return round(max(abs(row["off_percent"]) for row in rows) / 100, 4)


def main(arguments: list[str] | None = None) -> int:
    """Prune, time, compare, write ``results/constraint.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=3.0, help="of the latency")
    parser.add_argument("--smaller", type=float, nargs="+", default=[2.0, 4.0], help="the sizes")
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
    latencies: dict[str, Asked] = {
        f"latency-{given.speedup:g}": ("latency", given.speedup, None),
        f"units-{given.speedup:g}": ("latency", given.speedup, True),
    }
    sizes: dict[str, Asked] = {f"size-{ratio:g}": ("size", ratio, None) for ratio in given.smaller}
    for name, asked in (latencies | sizes).items():
        program, row = kept(
            ctx.workspace / name,
            lambda folder, asked=asked: student(*asked, replace(ctx, workspace=folder), given.epochs),
        )
        rows.append(row)
        programs[name] = ctx.apply(program, [("fold_batchnorm", {})])
        print(row, flush=True)
    whole, *times = in_turns(programs, ctx).values()
    rows = [{**row, "measured_ms": ms} for row, ms in zip(rows, times, strict=True)]
    result: dict[str, Any] = {
        **facts.facts(given.seed), "bars": BARS, "epochs": given.epochs, "samples": given.samples,
        "teacher_ms": whole, "latency": rows[0], "units": rows[1], "sizes": rows[2:],
        **verdict(rows[0], rows[1], rows[2:]),
    }  # fmt: skip
    print(f"{result['values']} {result['passed']}\nwritten to {facts.write('constraint', result)}")
    return int(not all(result["passed"].values()))


if __name__ == "__main__":
    sys.exit(main())
