"""Predicts models that a fit never saw: ``python -m benchmarks.latency_model.heldout``.

Fits ``host-cpu`` (OpenVINO) and ``host-cpu-onnx`` (ONNX Runtime), ten minutes each, on the suite of random networks;
then times random subnets of architectures of `transformers` at float32 and int8 on both, in turns with the reference,
and compares: after the fit, after ten of its latencies, and from the datasheet alone. Run it on an idle machine.
Writes ``results/latency_heldout.json``; exit status 1 when a bar is missed.
"""

import argparse
import os
import pickle
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import facts
from benchmarks.latency_model.architectures import ARCHITECTURES, build
from compactor.errors import CompactorError
from compactor.frontend import export
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.pipeline import fitting
from compactor.pipeline.bench import Bench, Sample, prepare, sample
from compactor.pipeline.context import Silent
from compactor.target import Observation
from compactor.targets.device import ProfileTarget
from compactor.targets.fits import Fit
from compactor.targets.registry import profiles

TARGETS = ("host-cpu", "host-cpu-onnx")
PRECISIONS = ("float32", "int8")
BARS = {"within_10": 0.95, "models": 80, "covered_low": 0.85, "covered_high": 0.95}
FEW = 10


def held_out(
    target: ProfileTarget, folder: Path, seed: int, speed: float | None = None
) -> list[tuple[str, Observation]]:
    """A random subnet of every architecture, at both precisions, timed once all of them are lowered into ``folder``.

    Latencies are those at the speed of the machine where the reference takes ``speed`` milliseconds.
    """
    models = prepared(target, folder, seed)
    bench = Bench(target, fitting.reference(target, folder))
    for model in models:
        bench.measure(model.sample, seconds=0.4, tries=8)
    print("drift", np.percentile(bench.drifts(speed), (0, 5, 50, 95, 100)).round(3), flush=True)
    return [(m.architecture, seen) for m, seen in zip(models, bench.observations(speed), strict=True)]


def prepared(target: ProfileTarget, folder: Path, seed: int) -> "list[HeldOut]":
    """All subnets, lowered into ``folder`` unless they are there."""
    path = folder / f"{target.name}-{seed}.pickle"
    if not path.exists():
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            count = len(ARCHITECTURES)
            ready = pool.map(lowered, ARCHITECTURES, [target] * count, [folder] * count, range(seed, seed + count))
            path.write_bytes(pickle.dumps([model for models in ready for model in models]))
    found: list[HeldOut] = pickle.loads(path.read_bytes())
    return found


@dataclass(frozen=True)
class HeldOut:
    """A subnet of an architecture, lowered."""

    architecture: str
    sample: Sample


def lowered(name: str, target: ProfileTarget, folder: Path, seed: int) -> list[HeldOut]:
    """A random subnet of the architecture in every precision; one that cannot be made is said and left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        module, inputs = build(name)
        try:
            program = prepare(export(module, inputs), target, folder)
            space = space_of(program)
            student = slice_program(space.program, space.sample(seed, keep=(0.5, 1.0)))
            return [HeldOut(name, sample(student, precision, target, folder)) for precision in PRECISIONS]
        except CompactorError as error:
            print(f"{name}: left out: {error.message}", file=sys.stderr)
            return []


def timings(
    target: ProfileTarget, folder: Path, seconds: float, seed: int
) -> tuple[list[Observation], list[tuple[str, Observation]]]:
    """What a fit of a target sees, and the models held out, at one speed of the machine."""
    bench = fitting.observe(target, seconds=seconds, seed=seed, progress=Silent())
    print(target.name, "fit: drift", np.percentile(bench.drifts(), (0, 5, 50, 95, 100)).round(3), flush=True)
    return bench.observations(), held_out(target, folder, seed, bench.usual)


def plain(name: str) -> ProfileTarget:
    """A target as its datasheet has it."""
    return ProfileTarget(profiles.resolve(name).given, Fit({}))


def errors(target: ProfileTarget, models: Sequence[tuple[str, Observation]]) -> list[dict[str, Any]]:
    """Predicted against measured, one row per model."""
    rows = []
    for name, seen in models:
        latency = target.predict(seen.kernels, seen.precision)
        assert latency.low is not None and latency.high is not None
        rows.append(
            {
                "model": name, "target": target.name, "precision": seen.precision, "measured": round(seen.ms, 4),
                "predicted": round(latency.p50, 4), "covered": latency.low <= seen.ms <= latency.high,
                "width": round(latency.high / latency.low, 3),
            }
        )  # fmt: skip
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median error, shares within 10 and 20 %, share that the 90 % interval covers."""
    off = np.abs([r["predicted"] / r["measured"] - 1 for r in rows])
    return {
        "models": len(rows), "median_error": round(float(np.median(off)), 4),
        "within_10": round(float((off <= 0.1).mean()), 4), "within_20": round(float((off <= 0.2).mean()), 4),
        "covered": round(float(np.mean([r["covered"] for r in rows])), 4),
    }  # fmt: skip


def main() -> int:
    """Fit, measure, compare, write."""
    parser = argparse.ArgumentParser(prog="benchmarks.latency_model.heldout", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of fit per target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timings", type=Path, help="a file to keep what was timed in; it is not timed again")
    parser.add_argument("--models", type=Path, help="a folder to keep the lowered models in")
    parser.add_argument("--prepare", action="store_true", help="lower them into that folder, and do nothing else")
    options = parser.parse_args()
    if options.prepare:
        options.models.mkdir(parents=True, exist_ok=True)
        return sum(not prepared(plain(name), options.models, options.seed) for name in TARGETS)
    if options.timings is None or not options.timings.is_file():
        with TemporaryDirectory() as folder:
            models = options.models or Path(folder)
            timed = {name: timings(plain(name), models, 60 * options.minutes, options.seed) for name in TARGETS}
        if options.timings is not None:
            options.timings.write_bytes(pickle.dumps((options.minutes, timed)))
    else:
        options.minutes, timed = pickle.loads(options.timings.read_bytes())
    found: dict[str, list[dict[str, Any]]] = {"fit": [], "ten": [], "datasheet": []}
    fits: dict[str, Any] = {}
    for name, (observed, models) in timed.items():
        target = plain(name)
        fits[name] = {p: sum(o.precision == p for o in observed) for p in target.precisions}
        few = [o for p in target.precisions for o in [o for o in observed if o.precision == p][:FEW]]
        for kind, seen in (("fit", observed), ("ten", few), ("datasheet", [])):
            found[kind] += errors(ProfileTarget(target.given, Fit(target.learned(seen))), models)
        print(name, fits[name], {kind: summary(rows) for kind, rows in found.items()}, flush=True)
    result = {kind: summary(rows) for kind, rows in found.items()}
    after = result["fit"]
    passed = {
        "within_10": after["within_10"] >= BARS["within_10"],
        "models": after["models"] >= BARS["models"],
        "covered": BARS["covered_low"] <= after["covered"] <= BARS["covered_high"],
    }
    for row in sorted(found["fit"], key=lambda r: -abs(np.log(r["predicted"] / r["measured"]))):
        print(f"{row['model']:20s} {row['target']:14s} {row['precision']:9s} {row['measured']:9.3f} ms "
              f"{row['predicted'] / row['measured'] - 1:+.1%}")  # fmt: skip
    path = facts.write(
        "latency_heldout", {**facts.facts(options.seed), "bars": BARS, "passed": passed, "fits": fits,
                            "minutes": options.minutes, **result, "rows": found},
    )  # fmt: skip
    print(result, passed, path)
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
