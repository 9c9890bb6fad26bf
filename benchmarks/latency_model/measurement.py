"""What measuring costs, and whether it repeats: ``python -m benchmarks.latency_model.measurement``. Idle machine only.

Overhead: what is measured for one query of a model of about a millisecond, against the runtime itself in a bare loop,
in turns. Repeatability: the same models measured twice, a pass over all of them between, raw and drift-corrected.
Writes ``results/measurement.json``; exit status 1 when a bar is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openvino

from benchmarks import facts
from compactor.frontend import export
from compactor.pipeline import fitting
from compactor.pipeline.bench import Bench, Sample, prepare, sample
from compactor.pipeline.request import backend_of, resolve_target
from compactor.pipeline.suite import network
from compactor.target import Target

TARGETS = ("host-cpu", "host-cpu-onnx")
BARS = {"overhead": 0.01, "repeat": 0.03}
_TURNS, _QUERIES, _WARM = 40, 50, 10


def samples(target: Target, folder: Path, seed: int, count: int) -> list[Sample]:
    """Networks of the fit's suite at float32."""
    programs = (prepare(export(*network(seed + i)), target, folder) for i in range(count))
    return [sample(p, "float32", target, folder) for p in programs]


def bare(session: Any, model: Sample) -> Callable[[], Any]:
    """One query of the runtime alone, its inputs ready, past the session that measurements use."""
    if hasattr(session, "compiled"):
        request = session.compiled.create_infer_request()
        for index, values in enumerate(model.inputs):
            request.set_input_tensor(index, openvino.Tensor(values.numpy(), shared_memory=True))
        return request.infer  # type: ignore[no-any-return]
    names = [value.name for value in session.session.get_inputs()]
    feeds = dict(zip(names, (t.numpy() for t in model.inputs), strict=True))
    return lambda: session.session.run(None, feeds)


def overhead(target: Target, model: Sample) -> dict[str, float]:
    """Milliseconds of a query, measured and of the runtime in a bare loop; and the excess, the median of the turns."""
    session = backend_of(target).open(model.lowered, batch=1)
    runtime = bare(session, model)
    found = []
    for _ in range(_TURNS):
        measured = target.compare({"": session}, model.inputs, seconds=0.05)[""].p50
        for _ in range(_WARM):
            runtime()
        times = []
        for _ in range(_QUERIES):
            start = time.perf_counter()
            runtime()
            times.append((time.perf_counter() - start) * 1e3)
        found.append((measured, median(times)))
    ms = {name: median(values) for name, values in zip(("measured", "runtime"), zip(*found, strict=True), strict=True)}
    return {**ms, "overhead": median(measured / bare - 1 for measured, bare in found)}


def repeated(target: Target, folder: Path, models: list[Sample]) -> dict[str, Any]:
    """Differences of two measurements of each model (median, 90 %), relative: as measured, and corrected for drift."""
    bench = Bench(target, fitting.reference(target, folder))
    passes = np.log([[bench.measure(m, seconds=0.7).ms for m in models] for _ in range(2)])
    drifts = np.array(bench.drifts()).reshape(2, -1)
    raw = np.abs(passes[0] - passes[1])
    corrected = np.abs(passes[0] - passes[1] - np.log(drifts[0] / drifts[1]))
    return {
        "models": len(models), "ms": np.exp([passes.min(), passes.max()]).round(3).tolist(),
        "raw": np.quantile(raw, (0.5, 0.9)).round(4).tolist(),
        "corrected": np.quantile(corrected, (0.5, 0.9)).round(4).tolist(),
        "drift": [round(float(v), 3) for v in np.percentile(drifts, (5, 50, 95))],
    }  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="benchmarks.latency_model.measurement", description=__doc__)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--seed", type=int, default=500)
    options = parser.parse_args()
    targets: dict[str, Any] = {}
    for name in TARGETS:
        target = resolve_target(name)
        with TemporaryDirectory() as folder:
            models = samples(target, Path(folder), options.seed, options.models)
            repeat = repeated(target, Path(folder), models)
            times = [
                target.compare({"": backend_of(target).open(m.lowered, batch=1)}, m.inputs)[""].p50 for m in models
            ]
            nearest = int(np.argmin(np.abs(np.log(times))))
            targets[name] = {"repeat": repeat, "overhead": overhead(target, models[nearest])}
        print(name, targets[name], flush=True)
    worst = {
        "overhead": max(t["overhead"]["overhead"] for t in targets.values()),
        "repeat": max(t["repeat"]["raw"][0] for t in targets.values()),
    }
    passed = {name: worst[name] < bar for name, bar in BARS.items()}
    result = {**facts.facts(options.seed), "bars": BARS, "worst": worst, "passed": passed, "targets": targets}
    print(worst, passed, facts.write("measurement", result))
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
