"""What structure alone is worth: a pruned, distilled student in float32 against its teacher in float32.

``python -m benchmarks.distillation.structure [cifar10] [sst2]``. A student for every bar: `prune.cofi` to the speed-up
and fine-tuned against the teacher, without quantization. Both are lowered for the same runtime in float32 and timed
here in turns, batch 1, texts of 64 tokens. Students are chosen on ``dev``; accuracies are of ``test``. Every stage is
stored in ``--work`` with checkpoints: a run that was stopped goes on where it was. Exit status 1 when a bar is missed.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import data, end_to_end, facts
from benchmarks.around import Like, context, in_turns
from compactor import frontend, scoring
from compactor.ir.program import Program
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.ledger import Ledger
from compactor.pipeline.manager import PassManager
from compactor.pipeline.request import open_data
from compactor.pipeline.store import Store
from compactor.pipeline.text import Pipeline

BARS = {"sst2": ((3.0, 1.0), (6.0, 3.0)), "cifar10": ((2.5, 1.0), (4.0, 2.5))}
"""(least speed-up, most points of accuracy lost)."""

PIPELINES = {
    "sst2": "canonicalize,prune.cofi{speedup=SPEEDUP,hidden=false,prune_epochs=1,epochs=2,variants=2},"
    "distill.logits{epochs=1,variants=4},fold_batchnorm",
    "cifar10": "canonicalize,prune.cofi{speedup=SPEEDUP,margin=0.95,width=false,prune_epochs=2,epochs=40,views=8},"
    "fold_batchnorm",
}
"""Up to an hour a student on one core; the efforts of `prune.cofi` itself take longer."""

WORK = facts.ROOT / ".compactor" / "benchmarks" / "structure"


def surroundings(case: end_to_end.Case, work: Path, given: argparse.Namespace) -> PassContext:
    """Of all passes of a case: float32 is all that the target runs."""
    teacher, target = frontend.load(case.teacher), Like("host-cpu", precisions=("float32",))
    source = data.shortened(open_data(str(case.data), teacher, given.seed), given.samples)
    ledger: Any = Ledger(work / "store", target)  # type: ignore[arg-type]
    return context(teacher, source, target, work, given.seed, effort=given.effort, ledger=ledger)


def student(bar: tuple[float, float], pipeline: str, ctx: PassContext, store: Store) -> dict[str, Any]:
    """The student of one bar."""
    speedup, drop = bar
    started = time.monotonic()
    steps = Pipeline.parse(pipeline.replace("SPEEDUP", f"{speedup:g}"))
    run = PassManager(store).run(steps, ctx.teacher, ctx)
    whole, test = canonical(ctx.teacher), ctx.data.test or ctx.data.dev
    folded = ctx.apply(whole, [("fold_batchnorm", {})])
    ms = in_turns({"teacher": folded, "student": run.program}, ctx)
    accuracy = {name: round(scoring.accuracy(p, test), 3) for name, p in (("teacher", whole), ("student", run.program))}
    found = {"speedup": ms["teacher"] / ms["student"], "drop": accuracy["teacher"] - accuracy["student"]}
    return {
        "asked": {"speedup": speedup, "drop": drop},
        **{name: round(value, 3) for name, value in found.items()},
        "passed": found["speedup"] >= speedup and found["drop"] <= drop,
        "pipeline": str(steps), "latency_ms": ms, "test_accuracy": accuracy,
        "teacher": _cost(whole), "student": _cost(run.program), "minutes": round((time.monotonic() - started) / 60, 1),
        "passes": [{k: r[k] for k in ("pass", "seconds")} | {"metrics": _short(r["metrics"])} for r in run.records],
    }  # fmt: skip


def _cost(program: Program) -> dict[str, int]:
    cost = program.cost()
    return {"parameters": cost.parameters, "macs": cost.macs}


def _short(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if k != "subnet"}


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write ``results/structure.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(BARS)}; else all, and a result is stored")
    parser.add_argument("--pipeline", help="another one; SPEEDUP stands for that of the bar")
    parser.add_argument("--effort", choices=("quick", "balanced", "max"), default="balanced")
    parser.add_argument("--samples", type=int, help="of every split, for a trial; nothing is stored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.cases) - set(BARS)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(BARS)}")
    result: dict[str, Any] = {**facts.facts(given.seed), "effort": given.effort, "cases": {}}
    for name in given.cases or BARS:
        work = given.work / name
        work.mkdir(parents=True, exist_ok=True)
        ctx = surroundings(end_to_end.CASES[name](work), work, given)
        rows = result["cases"][name] = []
        for bar in BARS[name]:
            rows.append(row := student(bar, given.pipeline or PIPELINES[name], ctx, Store(work / "store")))
            print(
                f"{name}: {row['speedup']}x at {row['drop']} points ({row['asked']}), passed: {row['passed']}",
                flush=True,
            )
    if not given.cases and given.samples is None:
        print(f"written to {facts.write('structure', result)}")
    return int(not all(row["passed"] for rows in result["cases"].values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
