"""Measured against predicted on a device that is here: ``python -m benchmarks.latency_model.measured [TARGET]``.

The networks are those of `benchmarks.latency_model.networks`, lowered as a build would. Measured is the least median of
several passes over all of them, batch 1, in milliseconds. Writes ``results/measured-TARGET.json`` unless networks are
named. Idle machine only. The rows of ``published.toml`` that are this project's come from here.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import facts
from benchmarks.latency_model.networks import example
from compactor.errors import UnsupportedError
from compactor.frontend import export
from compactor.pipeline.bench import prepare, sample
from compactor.pipeline.request import backend_of, resolve_target
from compactor.target import Target

NETWORKS = (
    "resnet56", "resnet20", "resnet8", "mobilenetv2", "yolo11n", "yolo11s", "bert-6-384-1536-12-64",
    "bert-3-384-512-12-64", "bert-6-192-384-6-64", "bert-base-128",
)  # fmt: skip


def rows(target: Target, names: list[str], passes: int, folder: Path) -> list[dict[str, Any]]:
    """Milliseconds, measured and predicted, of each network in each precision of the target."""
    sessions, found = {}, []
    for name in names:
        program = prepare(export(*example(name)), target, folder)
        for precision in target.precisions:
            try:
                made = sample(program, precision, target, folder)
            except UnsupportedError as error:  # the device has it, the runtime has not
                print(f"{name} {precision}: {error.message}")
                continue
            sessions[name, precision] = backend_of(target).open(made.lowered, batch=1), made.inputs
            found.append({"network": name, "precision": precision, **_predicted(target, made.kernels, precision)})
    times = [
        [target.compare({"": session}, inputs)[""].p50 for session, inputs in sessions.values()] for _ in range(passes)
    ]
    for row, *measurements in zip(found, *times, strict=True):
        measured = min(measurements)
        row |= {
            "measured_ms": round(measured, 4),
            "error_percent": round(100 * (row["predicted_ms"] / measured - 1), 1),
        }
        row["inside"] = row["interval_ms"][0] <= measured <= row["interval_ms"][1]
    return found


def _predicted(target: Target, kernels: Any, precision: Any) -> dict[str, Any]:
    latency = target.predict(kernels, precision)
    low, high = latency.low or latency.p50, latency.high or latency.p50
    return {"predicted_ms": round(latency.p50, 4), "interval_ms": [round(low, 4), round(high, 4)]}


def main() -> int:
    """Lower, time, print, write."""
    parser = argparse.ArgumentParser(prog="benchmarks.latency_model.measured", description=__doc__)
    parser.add_argument("target", nargs="?", default="host-cpu")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="some of them; nothing is stored")
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    target = resolve_target(options.target)
    with TemporaryDirectory() as folder:
        found = rows(target, options.networks or list(NETWORKS), options.passes, Path(folder))
    for row in found:
        print(*row.values())
    summary = {
        "median_error_percent": round(median(abs(row["error_percent"]) for row in found), 1),
        "inside_percent": round(100 * sum(row["inside"] for row in found) / len(found), 1),
    }
    print(summary)
    if not options.networks:
        print(f"written to {facts.write(f'measured-{target.name}', {**facts.facts(0), **summary, 'rows': found})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
