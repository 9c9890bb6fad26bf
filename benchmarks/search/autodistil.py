"""AutoDistil's chosen subnets against uniform slices, MiniLM on SST-2: ``python -m benchmarks.search.autodistil``.

In each of two sub-spaces: `search.autodistil` trains the super-network, ranks its subnets on ``dev`` and slices the
winner out. `search.uniform` gets exactly the latency that the winner is predicted to have, with the residual axis free
to shrink and without; the one that is better on ``dev`` stands. Nothing is trained after the choice on either side; the
accuracy on ``test`` is reported. Latencies are predicted for ``host-cpu`` from its datasheet, so that any machine
compares the same. Exit status 1 when AutoDistil is ahead by less than two points anywhere.
"""

import argparse
import shutil
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import data, facts
from benchmarks.around import context, predicted
from compactor import frontend, scoring
from compactor.errors import UsageError
from compactor.ir.program import Program
from compactor.ir.space import space_of
from compactor.passes.search.autodistil import AutoDistilConfig, AutoDistilSearch
from compactor.passes.search.bands import BANDS, subnets
from compactor.passes.search.uniform import UniformConfig, UniformSearch
from compactor.pipeline.canonical import canonical
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassResult
from compactor.pipeline.request import open_data

BAR = 2.0
SPACES = ("tiny", "small")
WORK = facts.ROOT / ".compactor" / "benchmarks" / "autodistil"


def middle(teacher: Program, name: str, ctx: PassContext) -> float:
    """The median predicted latency, milliseconds, of a sub-space, each subnet in its fastest precision."""
    space, target = space_of(teacher), ctx.target
    band = next(b for b in BANDS if b.name == name)
    found = [space.kernels(subnet) for subnet in subnets(space, band)]
    return statistics.median(min(target.predict(k, p).p50 for p in target.precisions) for k in found)


def uniform(teacher: Program, latency: float, ctx: PassContext) -> tuple[PassResult, dict[str, Any]]:
    """The better of the two uniform slices of a latency, by accuracy on ``dev``, and both figures."""
    found, scores = {}, {}
    for hidden in (False, True):
        config = UniformConfig(latency=f"{latency:.6f}ms", margin=1.0, hidden=hidden)
        try:
            found[hidden] = UniformSearch(config).run(teacher, ctx)
        except UsageError as error:
            scores[f"hidden={hidden}"] = error.message
            continue
        scores[f"hidden={hidden}"] = round(scoring.accuracy(found[hidden].program, ctx.data.dev), 2)
    best = max(found, key=lambda hidden: scores[f"hidden={hidden}"])
    return found[best], scores


def row(result: PassResult, ctx: PassContext) -> dict[str, Any]:
    """What a student costs and scores."""
    test = ctx.data.test
    if test is None:
        raise SystemExit("the data has no test split")
    wanted = ("latency_ms", "precision", "parameters", "macs", "loss", "steps", "subnets", "ranked")
    return {
        **{name: result.metrics[name] for name in wanted if name in result.metrics},
        "dev_accuracy": round(scoring.accuracy(result.program, ctx.data.dev), 2),
        "test_accuracy": round(scoring.accuracy(result.program, test), 2),
    }


def compare(teacher: Program, name: str, ctx: PassContext, options: dict[str, Any]) -> dict[str, Any]:
    """Both searches in one sub-space."""
    started = time.monotonic()
    latency = middle(teacher, name, ctx)
    config = AutoDistilConfig(space=name, latency=f"{latency:.6f}ms", margin=1.0, **options)  # type: ignore[arg-type]
    ours = AutoDistilSearch(config).run(teacher, ctx)
    minutes = (time.monotonic() - started) / 60
    theirs, dev = uniform(teacher, ours.metrics["latency_ms"], ctx)
    found = {"autodistil": row(ours, ctx), "uniform": {**row(theirs, ctx), "dev_accuracy_of": dev}}
    lead = found["autodistil"]["test_accuracy"] - found["uniform"]["test_accuracy"]
    return {"goal_ms": round(latency, 4), "minutes": round(minutes, 1), **found, "lead": round(lead, 2)}


def main(arguments: list[str] | None = None) -> int:
    """Run, print, write ``results/autodistil.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", choices=[b.name for b in BANDS], default=list(SPACES))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--samples", type=int, default=67349, help="of the training split")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args(arguments)
    if not given.resume:
        shutil.rmtree(given.work, ignore_errors=True)
    teacher = canonical(frontend.load(data.shared() / "teachers" / "sst2-minilm"))
    source = open_data(data.shared() / "data" / "sst2", teacher, given.seed)
    source = replace(source, train=data.drawn(source.train, given.samples, given.seed))
    options = {"epochs": given.epochs, "batch": given.batch}
    result: dict[str, Any] = {
        **facts.facts(given.seed), "bar": BAR, **options,
        "samples": len(source.train), "threads": torch.get_num_threads(), "spaces": {}
    }  # fmt: skip
    ctx = context(teacher, source, predicted(), given.work, given.seed)
    result["teacher"] = {
        "test_accuracy": round(scoring.accuracy(teacher, ctx.data.test or ctx.data.dev), 2),
        "latency_ms": round(min(ctx.target.predict(teacher.kernels(), p).p50 for p in ctx.target.precisions), 4),
    }
    for name in given.spaces:
        print(name, flush=True)
        ctx = context(teacher, source, predicted(), given.work / name, given.seed)
        found = result["spaces"][name] = compare(teacher, name, ctx, options)
        print(f"  autodistil {found['autodistil']}\n  uniform {found['uniform']}", flush=True)
        print(f"  lead {found['lead']} points", flush=True)
    print(f"written to {facts.write('autodistil', result)}")
    return int(min(found["lead"] for found in result["spaces"].values()) < BAR)


if __name__ == "__main__":
    sys.exit(main())
