"""Students of ResNet-56 found by `search.diswot`, by `search.uniform` and by chance.

``python -m benchmarks.search.resnet``. At 2, 4 and 8 times lower latency (float32 against float32, predicted for
``host-cpu`` from its datasheet) every student is distilled on a third of CIFAR-10 with the same recipe: as many epochs
as a budget of multiply-accumulates pays for the uniform student. `search.diswot` is run with and without students wider
than their teacher. Random students are as large as the latency allows. Weights are chosen on ``dev``; the accuracy on
``test`` is reported. Exit status 1 when a bar is missed.
"""

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import facts
from benchmarks.around import Lines, context, predicted, resnet56
from benchmarks.facts import kept
from compactor import scoring
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.ir.subnet import Subnet
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.passes.search.diswot import DiswotSearch
from compactor.passes.search.genes import Genome
from compactor.passes.search.goal import Goal, Option
from compactor.passes.search.importance import rank
from compactor.passes.search.study import DiswotConfig
from compactor.passes.search.uniform import UniformConfig, UniformSearch
from compactor.pipeline.context import PassContext

RATIOS = (2.0, 4.0, 8.0)
CHEAPER, PER_SECOND = 180.0, 15.0
"""Bars: how much cheaper scoring is than training, and candidates a second."""
BATCH = 128
WORK = facts.ROOT / ".compactor" / "benchmarks" / "resnet"


def students(teacher: Program, ratio: float, ctx: PassContext, options: argparse.Namespace) -> dict[str, Any]:
    """Subnets by method."""
    given: dict[str, Any] = {"speedup": ratio, "margin": 1.0}
    found: dict[str, Any] = {"uniform": UniformSearch(UniformConfig(**given)).run(teacher, ctx).metrics["subnet"]}
    for name, wider in (("diswot", 1.0), ("diswot, wider", 2.0)):
        own = replace(ctx, workspace=ctx.workspace / name.replace(", ", "-"))
        own.workspace.mkdir(parents=True, exist_ok=True)
        config = DiswotConfig(**given, candidates=options.candidates, wider=wider)
        found[name] = DiswotSearch(config).run(teacher, own).metrics["subnet"]
    space = space_of(teacher)
    genome = Genome.of(space, rank(teacher, space, ctx, samples=64, hidden=False), smallest=0.125, multiple=8)
    goal = Goal(teacher, UniformConfig(**given), ctx)
    limit = goal.ruler.whole / ratio
    rng = np.random.default_rng(options.seed)
    for i in range(options.random):
        genes = genome.sample(rng, lambda g: goal.ruler.fastest(Option(space, genome.subnet(g)).kernels)[0] <= limit)
        if genes is not None:
            found[f"random {i}"] = genome.subnet(genes).to_dict()
    return {"subnets": found}


def train(teacher: Program, subnet: Subnet, epochs: int, ctx: PassContext, outputs: Path) -> dict[str, Any]:
    """The row of one student: what it costs and, distilled, scores. Teacher outputs are kept in ``outputs``."""
    student = slice_program(teacher, subnet)
    ctx.workspace.mkdir(parents=True, exist_ok=True)
    outputs.mkdir(parents=True, exist_ok=True)
    for known in outputs.iterdir():
        (ctx.workspace / known.name).unlink(missing_ok=True)
        os.link(known, ctx.workspace / known.name)
    started = time.monotonic()
    result = LogitsDistillation(LogitsConfig.model_validate({"epochs": epochs, "batch": BATCH, "views": 2})).run(
        student, ctx
    )
    seconds = time.monotonic() - started
    for new in ctx.workspace.glob("*.outputs"):
        if not (outputs / new.name).exists():
            os.link(new, outputs / new.name)
    cost, kernels = student.cost(), student.kernels()
    return {
        "latency_ms": round(ctx.target.predict(kernels, "float32").p50, 4), "macs": cost.macs,
        "parameters": cost.parameters, "kernels": len(kernels), "steps": result.metrics["steps"],
        "sliced_dev_accuracy": round(result.metrics["before"], 2),
        "dev_accuracy": round(scoring.accuracy(result.program, ctx.data.dev), 2),
        "test_accuracy": round(scoring.accuracy(result.program, ctx.data.test or ctx.data.dev), 2),
        "seconds": round(seconds, 1), "subnet": subnet.to_dict(),
    }  # fmt: skip


def at(teacher: Program, ratio: float, ctx: PassContext, options: argparse.Namespace) -> dict[str, Any]:
    """All students at one ratio, distilled."""
    folder = options.work / f"{ratio:g}"
    folder.mkdir(parents=True, exist_ok=True)
    searched = kept(folder / "students.json", lambda: students(teacher, ratio, replace(ctx, workspace=folder), options))
    subnets = {name: Subnet.from_dict(found) for name, found in searched["subnets"].items()}
    epoch = 3 * space_of(teacher).cost(subnets["uniform"]).macs * len(ctx.data.train)
    epochs = max(1, round(options.macs / epoch))
    rows = {}
    for name, subnet in subnets.items():
        own = replace(ctx, workspace=folder / name.replace(", ", "-"))
        rows[name] = kept(
            folder / f"{name}.json", lambda s=subnet, c=own: train(teacher, s, epochs, c, options.work / "outputs")  # type: ignore[misc]
        )  # fmt: skip
        shown = {k: v for k, v in rows[name].items() if k != "subnet"}
        print(f"{ratio:g}x {name}, {epochs} epochs: {shown}", flush=True)
    chance = [row["test_accuracy"] for name, row in rows.items() if name.startswith("random")]
    return {
        "ratio": ratio, "epochs": epochs,
        "test_accuracy": {n: r["test_accuracy"] for n, r in rows.items() if not n.startswith("random")}
        | {"random": round(statistics.fmean(chance), 2) if chance else None},
        "rows": rows,
    }  # fmt: skip


def costs(teacher: Program, result: dict[str, Any], ctx: PassContext, options: argparse.Namespace) -> dict[str, Any]:
    """Candidates scored a second, and what training one of its ratio costs over scoring it.

    The rate is that between a short and a whole search: what every search does once (blocks are ranked, processes
    start) is ``setup_seconds``.
    """
    seconds, counts = [], []
    with TemporaryDirectory() as name:
        for candidates in (max(36, options.candidates // 10), options.candidates):
            own = replace(ctx, workspace=Path(name, str(candidates)))
            own.workspace.mkdir()
            config = DiswotConfig(speedup=result["ratio"], margin=1.0, candidates=candidates)
            started = time.monotonic()
            metrics = DiswotSearch(config).run(teacher, own).metrics
            seconds.append(time.monotonic() - started)
            counts.append(metrics["candidates"])
        row = train(
            teacher, Subnet.from_dict(metrics["subnet"]), 1, replace(ctx, workspace=Path(name, "training")),
            options.work / "outputs",
        )  # fmt: skip
    per_second = (counts[1] - counts[0]) / (seconds[1] - seconds[0])
    return {
        "candidates": counts[1], "per_second": round(per_second, 1),
        "setup_seconds": round(seconds[1] - counts[1] / per_second, 1),
        "epoch_seconds": row["seconds"], "cheaper": round(row["seconds"] * result["epochs"] * per_second, 1),
    }  # fmt: skip


def verdicts(found: dict[str, Any], cost: dict[str, Any], options: argparse.Namespace) -> dict[str, bool]:
    """Which bars are met: never worse than uniform, better from 4 times on; the cost of scoring."""
    passed = {}
    for result in found.values():
        ours, theirs = (result["test_accuracy"][name] for name in (options.choice, "uniform"))
        passed[f"{result['ratio']:g}x"] = ours > theirs if result["ratio"] >= 4 else ours >= theirs
    return {**passed, "per_second": cost["per_second"] >= PER_SECOND, "cheaper": cost["cheaper"] >= CHEAPER}


def main(arguments: list[str] | None = None) -> int:
    """Search, train, compare, write ``results/search_resnet56.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS))
    parser.add_argument("--candidates", type=int, default=600, help="scored per search")
    parser.add_argument("--random", type=int, default=5, help="random students per ratio")
    parser.add_argument("--macs", type=float, default=4e12, help="multiply-accumulates of one training")
    parser.add_argument("--samples", type=int, default=15000, help="of the training split")
    parser.add_argument("--choice", default="diswot", help="the search that is held against uniform")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
    options = parser.parse_args(arguments)
    teacher, source = resnet56(options.samples, options.seed)
    target = predicted(precisions=("float32",))
    ctx = context(teacher, source, target, options.work, options.seed, progress=Lines(60))
    found = {f"{ratio:g}": at(teacher, ratio, ctx, options) for ratio in options.ratios}
    cost = costs(teacher, next(iter(found.values())), ctx, options)
    passed = verdicts(found, cost, options)
    result = {
        **facts.facts(options.seed), "threads": torch.get_num_threads(), "candidates": options.candidates,
        "macs": options.macs, "samples": len(source.train), "choice": options.choice, "passed": passed,
        "teacher": {
            "test_accuracy": round(scoring.accuracy(teacher, source.test or source.dev), 2),
            "latency_ms": round(target.predict(teacher.kernels(), "float32").p50, 4),
        },
        "cost": cost, "ratios": found,
    }  # fmt: skip
    for each in found.values():
        print(f"{each['ratio']:g}x: {each['test_accuracy']}")
    print(cost, passed, facts.write("search_resnet56", result))
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
