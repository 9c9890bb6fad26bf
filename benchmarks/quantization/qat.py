"""Students in float32, quantized after training, and trained quantized: ``python -m benchmarks.quantization.qat``.

MiniLM on SST-2 and ResNet-56 on CIFAR-10. `search.uniform` slices each teacher to its predicted latency over
``--speedup``, `distill.logits` trains the student, batch norms are folded: the row ``float32``. From this one student,
with 8-bit activations and weights of ``--bits``: ``ptq`` is `quantize.ptq`, ``qat`` is `quantize.qat` with its defaults
(by rank, which for so few classes is the plain divergence), ``qat-top3`` tells three of the ten classes apart, and for
transformers ``qat+attention`` adds attention maps and outputs. Weights are chosen on ``dev``; the accuracy of the int8
Program on ``test`` is reported, for every seed and as a mean. Exit status 1 when a bar is missed: ``qat`` W8A8 within
`DROP` points of float32, and W4A8 trained by rank (``qat-top3`` where classes are left to the tail) winning back
`RECOVERED` of what ``ptq`` loses.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data, facts
from benchmarks.around import context, predicted
from compactor import frontend, scoring
from compactor.ir.program import Program
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.passes.quantize.qat import QatConfig, QuantizationAwareTraining
from compactor.passes.search.uniform import UniformConfig, UniformSearch
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass
from compactor.pipeline.request import open_data

ROWS = ("ptq", "qat", "qat-top3", "qat+attention")
DROP, RECOVERED = 0.3, 0.7
"""Bars: points that W8A8 may lose, and the share of what `quantize.ptq` loses at W4A8 to be won back."""
WORK = facts.ROOT / ".compactor" / "benchmarks" / "qat"


@dataclass(frozen=True)
class Case:
    """A teacher, where its data is (made in a folder of ours where needed), and further rows."""

    teacher: Path
    folder: Callable[[Path], Path]
    rows: tuple[str, ...]


def cases() -> dict[str, Case]:
    """By name."""
    shared = data.shared()
    return {
        "sst2": Case(shared / "teachers" / "sst2-minilm", lambda work: shared / "data" / "sst2", (*ROWS[:2], ROWS[3])),
        "cifar10": Case(
            shared / "teachers" / "cifar10-resnet56" / "resnet56.pt2",
            lambda work: data.prepare_cifar10(_made(work / "cifar10-data")),
            ROWS[:3],
        ),
    }


def quantizer(row: str, bits: int, epochs: int, samples: int) -> Pass:
    """The pass of a row."""
    shared: dict[str, Any] = {"bits": bits, "samples": samples}
    if row == "ptq":
        return PostTrainingQuantization(PtqConfig(**shared))
    if row == "qat-top3":
        shared["k"] = 3
    if row == "qat+attention":
        shared.update(attention_maps=1.0, attention_outputs=1.0)
    return QuantizationAwareTraining(QatConfig(**shared, epochs=epochs, variants=0))


def distilled(teacher: Program, ctx: PassContext, speedup: float, epochs: int) -> Program:
    """The student all rows begin with: sliced, trained, folded; made once per folder of work."""
    path = ctx.workspace / "student.pt2"
    if path.exists():
        return frontend.load(path)
    sliced = UniformSearch(UniformConfig(speedup=speedup, margin=1.0)).run(teacher, ctx).program
    trained = LogitsDistillation(LogitsConfig(epochs=epochs, variants=0)).run(sliced, ctx).program
    folded = folded_program(trained)[0]
    folded.save(path)
    return folded


def scores(program: Program, ctx: PassContext) -> dict[str, float]:
    """Accuracy on both splits, percent."""
    splits = {"dev_accuracy": ctx.data.dev, "test_accuracy": ctx.data.test or ctx.data.dev}
    return {name: round(scoring.accuracy(program, split), 2) for name, split in splits.items()}


def row(step: Pass, student: Program, ctx: PassContext) -> dict[str, Any]:
    """One row with one seed."""
    started = time.monotonic()
    _made(ctx.workspace)
    result = step.run(student, ctx)
    return {
        **scores(result.program, ctx),
        "steps": result.metrics.get("steps", 0),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }


def study(name: str, case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """All rows of one teacher; each is kept in a file of its own."""
    teacher = canonical(frontend.load(case.teacher))
    source = data.shortened(open_data(case.folder(given.work), teacher, 0), given.limit)
    told = f"{name}-{given.speedup:g}-{given.student_epochs}" + (f"-{given.limit}" if given.limit else "")
    ctx = context(teacher, source, predicted(), given.work / told)
    student = distilled(teacher, ctx, given.speedup, given.student_epochs)
    result: dict[str, Any] = {
        "teacher": {**scores(teacher, ctx), "macs": teacher.cost().macs},
        "float32": {**scores(student, ctx), "macs": student.cost().macs, "parameters": student.cost().parameters},
    }
    print(f"{name}: {result}", flush=True)
    for bits in given.bits:
        for kind in (r for r in case.rows if r in given.rows):
            step, found = quantizer(kind, bits, given.epochs, given.samples), []
            for seed in given.seeds:
                folder = ctx.workspace / f"{kind}-{bits}-{given.epochs}-{given.samples}-{seed}"
                own = replace(ctx, seed=seed, workspace=folder)
                found.append(facts.kept(folder.with_suffix(".json"), partial(row, step, student, own)))
                print(f"{kind} W{bits}A8, seed {seed}: {found[-1]}", flush=True)
            mean = statistics.fmean(f["test_accuracy"] for f in found)
            result[f"{kind} W{bits}A8"] = {"test_accuracy": round(mean, 2), "seeds": found}
    return result


def bars(rows: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, bool]]:
    """What the bars are about, of the rows that were made, and which are met.

    By teacher: points that W8A8 loses, and the share of what `quantize.ptq` loses at W4A8 that is won back (None where
    it loses nothing).
    """
    figures: dict[str, float | None] = {}
    passed: dict[str, bool] = {}
    for case, made in rows.items():
        accuracy = {name: found["test_accuracy"] for name, found in made.items()}
        exact = accuracy["float32"]
        if "qat W8A8" in accuracy:
            lost = round(exact - accuracy["qat W8A8"], 2)
            figures[f"{case} lost W8A8"], passed[f"{case} W8A8"] = lost, lost <= DROP
        ranked = accuracy.get("qat-top3 W4A8", accuracy.get("qat W4A8"))
        if "ptq W4A8" in accuracy and ranked is not None:
            gone, back = exact - accuracy["ptq W4A8"], ranked - accuracy["ptq W4A8"]
            figures[f"{case} recovered W4A8"] = round(back / gone, 3) if gone > 0 else None
            passed[f"{case} W4A8"] = gone <= 0 or back >= RECOVERED * gone
    return figures, passed


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write ``results/qat.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=("sst2", "cifar10"), default=["sst2", "cifar10"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--bits", type=int, nargs="+", choices=(8, 4, 3), default=[8, 4])
    parser.add_argument("--speedup", type=float, default=4.0)
    parser.add_argument("--student-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2, help="of quantization-aware training")
    parser.add_argument("--samples", type=int, default=300, help="that calibrate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=int, help="samples of every split, to try it out; nothing is written")
    parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
    given = parser.parse_args(arguments)
    known = cases()
    rows = {name: study(name, known[name], given) for name in given.cases}
    figures, passed = bars(rows)
    keys = ("speedup", "student_epochs", "epochs", "samples", "seeds")
    settings = {key: getattr(given, key) for key in keys}
    print(figures, passed)
    if given.limit is None:
        result = {**facts.facts(0), **settings, "figures": figures, "passed": passed, "rows": rows}
        print(f"written to {facts.write('qat', result)}")
    return 0 if all(passed.values()) else 1


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
