"""Students in float32, quantized after training, and trained quantized: ``python -m benchmarks.quantization.qat``.

MiniLM on SST-2 and ResNet-56 on CIFAR-10. `search.uniform` slices each teacher to its predicted latency over
``--speedup``, `distill.logits` trains the student, batch norms are folded: the row ``float32``. From this one student,
with 8-bit activations and weights of ``--bits``: ``ptq`` is `quantize.ptq`, ``qat`` is `quantize.qat`, ``qat-kl`` the
same with the plain divergence, and for transformers ``qat+attention`` with attention maps and outputs. Weights are
chosen on ``dev``; the accuracy of the int8 Program on ``test`` is reported, for every seed and as a mean.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import data, facts
from benchmarks.around import context, predicted
from compactor import frontend, scoring
from compactor.data import DataSource
from compactor.ir.program import Program
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.quantize.judge import Part
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.passes.quantize.qat import QatConfig, QuantizationAwareTraining
from compactor.passes.search.uniform import UniformConfig, UniformSearch
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass
from compactor.pipeline.request import open_data

ROWS = ("ptq", "qat", "qat-kl", "qat+attention")
WORK = facts.ROOT / ".compactor" / "benchmarks" / "qat"


@dataclass(frozen=True)
class Case:
    """A teacher, where its data is (made in a folder of ours where needed), and further rows."""

    teacher: Path
    folder: Callable[[Path], Path]
    rows: tuple[str, ...] = ROWS[:3]


def cases() -> dict[str, Case]:
    """By name."""
    shared = data.shared()
    return {
        "sst2": Case(shared / "teachers" / "sst2-minilm", lambda work: shared / "data" / "sst2", ROWS),
        "cifar10": Case(
            shared / "teachers" / "cifar10-resnet56" / "resnet56.pt2",
            lambda work: data.prepare_cifar10(_made(work / "cifar10-data")),
        ),
    }


def quantizer(row: str, bits: int, epochs: int, samples: int) -> Pass:
    """The pass of a row."""
    shared: dict[str, Any] = {"bits": bits, "samples": samples}
    if row == "ptq":
        return PostTrainingQuantization(PtqConfig(**shared))
    if row == "qat-kl":
        shared["loss"] = "kl"
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


def row(name: str, bits: int, student: Program, ctx: PassContext, given: argparse.Namespace) -> dict[str, Any]:
    """One row with one seed."""
    started = time.monotonic()
    step = quantizer(name, bits, given.epochs, given.samples)
    result = step.run(student, replace(ctx, workspace=_made(ctx.workspace / f"{name}-{bits}-{ctx.seed}")))
    found = {
        **scores(result.program, ctx),
        "steps": result.metrics.get("steps", 0),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(f"{name} W{bits}A8, seed {ctx.seed}: {found}", flush=True)
    return found


def study(name: str, case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """All rows of one teacher."""
    teacher = canonical(frontend.load(case.teacher))
    source = open_data(case.folder(given.work), teacher, 0)
    if given.limit is not None:
        splits = (source.train, source.dev, source.test or source.dev)
        source = DataSource(*(Part(s, torch.arange(min(given.limit, len(s)))) for s in splits))
    ctx = context(teacher, source, predicted(), given.work / name)
    student = distilled(teacher, ctx, given.speedup, given.student_epochs)
    result: dict[str, Any] = {
        "teacher": {**scores(teacher, ctx), "macs": teacher.cost().macs},
        "float32": {**scores(student, ctx), "macs": student.cost().macs, "parameters": student.cost().parameters},
    }
    print(f"{name}: {result}", flush=True)
    for bits in given.bits:
        for kind in (r for r in case.rows if r in given.rows):
            found = [row(kind, bits, student, replace(ctx, seed=seed), given) for seed in given.seeds]
            mean = statistics.fmean(f["test_accuracy"] for f in found)
            result[f"{kind} W{bits}A8"] = {"test_accuracy": round(mean, 2), "seeds": found}
    return result


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
    keys = ("speedup", "student_epochs", "epochs", "samples", "seeds")
    result = {**facts.facts(0), **{key: getattr(given, key) for key in keys}, "rows": rows}
    if given.limit is None:
        print(f"written to {facts.write('qat', result)}")
    return 0


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
