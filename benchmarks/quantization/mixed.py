"""A precision for each layer against one for all: ``python -m benchmarks.quantization.mixed``.

MiniLM on SST-2 and ResNet-56 on CIFAR-10, the teachers themselves with batch norms folded, on this machine in OpenVINO.
`quantize.mixed` chooses; then float32, bfloat16, int8 (`quantize.ptq`), weights of linear layers in 4 bits
(`quantize.weights`) and the choice are timed in turns, batch 1 (texts of 64 tokens), and scored on ``test``, all as
lowered; a choice of one precision for all is that row. Exit status 1 when a bar is missed: the choice faster than both
uniform precisions, and at most `DROP` points less accurate than the worse of the two.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import data, end_to_end, facts
from benchmarks.around import context, in_turns, opened
from compactor import frontend, scoring
from compactor.ir.program import Program
from compactor.passes.quantize.mixed import Mixed
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.request import open_data, resolve_target

Steps = dict[str, tuple[str, dict[str, Any]]]
UNIFORM: Steps = {"bfloat16": ("quantize.cast", {}), "int8": ("quantize.ptq", {})}
WEIGHTS: Steps = {"int4 weights": ("quantize.weights", {})}
DROP = 0.3
WORK = facts.ROOT / ".compactor" / "benchmarks" / "mixed"


def precisions(folded: Program, ctx: PassContext) -> dict[str, Program]:
    """The Program in every precision; 4 bits where it has linear layers that are worth it."""
    steps = UNIFORM | (WEIGHTS if any(k.kind == "linear" for k in folded.kernels()[:-1]) else {})
    return {"float32": folded, **{name: ctx.apply(folded, [step]) for name, step in steps.items()}}


def study(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """All precisions of one teacher."""
    work = given.work / name
    case, target = end_to_end.CASES[name](work), resolve_target("host-cpu")
    teacher = canonical(frontend.load(case.teacher))
    source = data.shortened(open_data(str(case.data), teacher, 0), given.samples)
    ctx = context(teacher, source, target, work)
    folded = ctx.apply(teacher, [("fold_batchnorm", {})])
    chosen = Mixed().run(folded, ctx)
    made = precisions(folded, ctx)
    same = next((row for row, program in made.items() if program.fingerprint == chosen.program.fingerprint), None)
    if same is None:
        made["mixed"] = chosen.program
    test = source.test or source.dev
    accuracy = {row: scoring.accuracy(session, test) for row, session in opened(made, ctx).items()}
    ms = in_turns(made, ctx)
    rows = {row: {"latency_ms": ms[row], "test_accuracy": round(accuracy[row], 3)} for row in made}
    rows["mixed"] = rows[same or "mixed"]
    print(f"{name}: {rows}, chosen {chosen.metrics['chosen']}", flush=True)
    worst = min(accuracy[row] for row in UNIFORM)
    figures = {
        "over_uniform": round(rows["mixed"]["latency_ms"] / min(ms[row] for row in UNIFORM), 4),
        "drop": round(worst - rows["mixed"]["test_accuracy"], 3),
    }
    return {
        "rows": rows,
        **figures,
        "passed": figures["over_uniform"] < 1 and figures["drop"] <= DROP,
        "chosen": {key: chosen.metrics.get(key) for key in ("chosen", "between", "exact", "candidates")},
        "int8_layers": sum(layer["precision"] == "int8" for layer in chosen.metrics.get("layers", ())),
        "layers": len(chosen.metrics.get("layers", ())),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write ``results/mixed.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=sorted(end_to_end.CASES), default=sorted(end_to_end.CASES))
    parser.add_argument("--samples", type=int, help="of every split, for a trial; nothing is stored")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args(arguments)
    result: dict[str, Any] = {**facts.facts(0), "cases": {name: study(name, given) for name in given.cases}}
    if given.samples is None:
        print(f"written to {facts.write('mixed', result)}")
    return int(not all(case["passed"] for case in result["cases"].values()))


if __name__ == "__main__":
    sys.exit(main())
