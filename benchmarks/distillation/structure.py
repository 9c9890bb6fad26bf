"""What structure alone is worth: a pruned, distilled student in float32 against its teacher in float32.

``python -m benchmarks.distillation.structure [cifar10] [sst2]``. A student for every bar: `prune.cofi` to a speed-up
and fine-tuned against the teacher, without quantization, most of them once more from there. Both are
lowered for the same runtime in float32 and timed here in turns, batch 1, texts of 64 tokens. Students are chosen on
``dev``; accuracies are of ``test``. Every stage is stored in ``--work`` with checkpoints: a run that was stopped goes
on where it was. Each case has its own place among the results. Exit status 1 when a bar is missed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
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

_FIRST = {
    "sst2": "canonicalize,prune.cofi{speedup=3,margin=0.97,hidden=false,batch=128,prune_lr=2e-4,prune_epochs=2,"
    "epochs=1,variants=0},distill.layerwise{layers=1,logits=0.5,hidden=0.5,epochs=1,variants=6}",
    "cifar10": "canonicalize,prune.cofi{speedup=2.5,margin=0.95,width=false,prune_epochs=2,epochs=20,views=8}",
}
PIPELINES = {
    "sst2": (
        (
            _FIRST["sst2"],
            "prune.cofi{speedup=1.25,margin=0.97,hidden=false,batch=128,prune_lr=2e-4,prune_epochs=1,epochs=1,"
            "variants=0},distill.layerwise{layers=1,logits=0.5,hidden=0.5,epochs=1,variants=1}",
        ),
        (
            _FIRST["sst2"],
            "prune.cofi{speedup=2,margin=0.95,hidden=false,batch=128,prune_lr=2e-4,prune_epochs=1,epochs=1,variants=0},"
            "distill.layerwise{layers=1,logits=0.5,hidden=0.5,epochs=1,variants=2}",
        ),
    ),
    "cifar10": (
        (_FIRST["cifar10"],),
        (_FIRST["cifar10"], "prune.cofi{speedup=1.6,margin=0.97,width=false,prune_epochs=2,epochs=12,views=8}"),
    ),
}
"""For every bar, run one after the other; what they share is trained once."""

WORK = facts.ROOT / ".compactor" / "benchmarks" / "structure"


def surroundings(case: end_to_end.Case, work: Path, given: argparse.Namespace) -> PassContext:
    """Of all passes of a case: float32 is all that the target runs."""
    teacher, target = frontend.load(case.teacher), Like("host-cpu", precisions=("float32",))
    source = data.shortened(open_data(str(case.data), teacher, given.seed), given.samples)
    ledger: Any = Ledger(work / "store", target)  # type: ignore[arg-type]
    return context(teacher, source, target, work, given.seed, effort=given.effort, ledger=ledger)


def student(bar: tuple[float, float], pipelines: Sequence[str], ctx: PassContext, store: Store) -> dict[str, Any]:
    """The row of one bar's student."""
    speedup, drop = bar
    started = time.monotonic()
    program, records = ctx.teacher, []
    chain = [Pipeline.parse(text) for text in pipelines]
    for steps in chain:
        run = PassManager(store).run(steps, program, ctx)
        program, records = run.program, [*records, *run.records]
    networks = {"teacher": canonical(ctx.teacher), "student": program}
    ms = in_turns({name: ctx.apply(p, [("fold_batchnorm", {})]) for name, p in networks.items()}, ctx)
    test = ctx.data.test or ctx.data.dev
    accuracy = {name: round(scoring.accuracy(p, test), 3) for name, p in networks.items()}
    found = {"speedup": ms["teacher"] / ms["student"], "drop": accuracy["teacher"] - accuracy["student"]}
    return {
        "asked": {"speedup": speedup, "drop": drop},
        **{name: round(value, 3) for name, value in found.items()},
        "passed": found["speedup"] >= speedup and found["drop"] <= drop,
        "pipelines": [str(steps) for steps in chain], "latency_ms": ms, "test_accuracy": accuracy,
        **{name: _cost(p) for name, p in networks.items()}, "minutes": round((time.monotonic() - started) / 60, 1),
        "passes": [{k: r[k] for k in ("pass", "seconds")} | {"metrics": _short(r["metrics"])} for r in records],
    }  # fmt: skip


def _cost(program: Program) -> dict[str, int]:
    cost = program.cost()
    return {"parameters": cost.parameters, "macs": cost.macs}


def _short(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if k != "subnet"}


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write ``results/structure-CASE.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(BARS)}; else all")
    parser.add_argument("--effort", choices=("quick", "balanced", "max"), default="balanced")
    parser.add_argument("--samples", type=int, help="of every split, for a trial; nothing is stored")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.cases) - set(BARS)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(BARS)}")
    passed = True
    for name in given.cases or BARS:
        work = given.work / name
        work.mkdir(parents=True, exist_ok=True)
        ctx = surroundings(end_to_end.CASES[name](work), work, given)
        rows = []
        for bar, pipelines in zip(BARS[name], PIPELINES[name], strict=True):
            row = student(bar, pipelines, ctx, Store(work / "store"))
            rows.append(row)
            print(
                f"{name}: {row['speedup']}x at {row['drop']} points ({row['asked']}), passed: {row['passed']}",
                flush=True,
            )
        passed &= all(row["passed"] for row in rows)
        if given.samples is None:
            result = {**facts.facts(given.seed), "effort": given.effort, "students": rows}
            print(f"written to {facts.write(f'structure-{name}', result)}")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
