"""This machine's rows of ``published.toml``: ``python -m benchmarks.latency_model.own``. Idle machine only.

The networks are those of `benchmarks.latency_model.networks`, lowered as a build would; each row is the least median
of several passes over all of them, in milliseconds.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.latency_model.networks import example
from compactor.frontend import export
from compactor.pipeline.bench import prepare, sample
from compactor.pipeline.request import backend_of, resolve_target

NETWORKS = (
    "resnet56", "resnet20", "resnet8", "bert-6-384-1536-12-64", "bert-3-384-512-12-64", "bert-6-192-384-6-64",
    "mobilenetv2",
)  # fmt: skip


def main() -> int:
    """Lower, time, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.latency_model.own", description=__doc__)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    target = resolve_target("host-cpu")
    with TemporaryDirectory() as temporary:
        folder, sessions = Path(temporary), {}
        for name in NETWORKS:
            program = prepare(export(*example(name)), target, folder)
            for precision in options.precisions:
                made = sample(program, precision, target, folder)
                sessions[name, precision] = backend_of(target).open(made.lowered, batch=1), made.inputs
        found = [
            {key: target.compare({"": session}, inputs)[""].p50 for key, (session, inputs) in sessions.items()}
            for _ in range(options.passes)
        ]
    for name in NETWORKS:
        print(name, "=", [round(min(times[name, p] for times in found), 3) for p in options.precisions])
    return 0


if __name__ == "__main__":
    sys.exit(main())
