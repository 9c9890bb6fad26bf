"""Time and memory of analysis and slice on BERT-base layers, 6 to 48 of them, and how they grow with the graph.

``python -m benchmarks.coverage.scaling``. Every depth runs in a process of its own. Exit status 1 when a bar is missed.
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks import facts
from benchmarks.coverage.building import build
from benchmarks.coverage.pretrained import TRANSFORMER, Entry
from compactor.frontend.exporting import export
from compactor.frontend.quiet import quiet
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.passes.canonicalize.canonicalize import canonical

DEPTHS = (6, 12, 24, 48)
BARS = {"analysis_seconds": 2.0, "slice_seconds": 1.0, "peak_memory": 1.3, "exponent": 1.1}
"""The first three for 12 layers; memory as a multiple of the weights."""
ROUNDS = 3

T = TypeVar("T")


def measure(depth: int) -> dict[str, Any]:
    """Seconds (median of three) and peak memory of analysis and slice for one depth, in this process."""
    program = _bert(depth)
    weights = program.cost().bytes
    row: dict[str, Any] = {"layers": depth, "nodes": len(program.graph.nodes), "weight_bytes": weights}
    fresh, analysis_bytes = _grown(lambda: _analysed(program))
    student, slice_bytes = _grown(lambda: slice_program(fresh, space_of(fresh).sample(0, keep=0.5, depth=1.0)))
    row["analysis_memory"] = round(1 + analysis_bytes / weights, 4)
    # The student is what was asked for; working memory is what comes on top.
    row["slice_memory"] = round(1 + (slice_bytes - student.cost().bytes) / weights, 4)
    row["slice_memory_with_student"] = round(1 + slice_bytes / weights, 4)
    del student
    row["analysis_seconds"] = _seconds(lambda: _analysed(program))
    row["slice_seconds"] = _seconds(lambda: slice_program(fresh, space_of(fresh).sample(0, keep=0.5, depth=1.0)))
    return row


def _bert(depth: int) -> Program:
    sizes = dict(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=depth)
    with quiet():
        module, inputs = build(Entry("bert", "BertConfig", "BertForSequenceClassification", "text", TRANSFORMER, sizes))
        return canonical(export(module, inputs))[0]


def _analysed(program: Program) -> Program:
    """A copy without cached shapes, analysed: shape inference is part of the work."""
    fresh = program.evolve()
    space_of(fresh)
    return fresh


def _seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        gc.collect()
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return round(statistics.median(taken), 4)


def _grown(work: Callable[[], T]) -> tuple[T, int]:
    """A result, and the bytes by which the process's resident memory grew at most while it was made (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or memory that is free but not returned would hide what the work takes
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    result = work()
    return result, max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def exponent(rows: list[dict[str, Any]], key: str) -> float:
    """The power of the graph's size with which a time grows, by least squares of logarithms."""
    nodes, seconds = (np.log([row[name] for row in rows]) for name in ("nodes", key))
    return round(float(np.polyfit(nodes, seconds, 1)[0]), 3)


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Every bar with its value."""
    base = next(row for row in rows if row["layers"] == 12)
    values = {
        "analysis_seconds": base["analysis_seconds"],
        "slice_seconds": base["slice_seconds"],
        "peak_memory": max(base["analysis_memory"], base["slice_memory"]),
        "exponent": max(exponent(rows, "analysis_seconds"), exponent(rows, "slice_seconds")),
    }
    return {name: {"bar": bar, "value": values[name], "passed": values[name] <= bar} for name, bar in BARS.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure every depth, print, write ``results/scaling.json``; with ``--depth``, print one depth as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.coverage.scaling", description=__doc__)
    parser.add_argument("--depth", type=int, help="measure this number of layers in this process and print JSON")
    depth = parser.parse_args(arguments).depth
    if depth is not None:
        print(json.dumps(measure(depth)))
        return 0
    rows = []
    for layers in DEPTHS:
        command = [sys.executable, "-m", "benchmarks.coverage.scaling", "--depth", str(layers)]
        done = subprocess.run(command, cwd=facts.ROOT, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    bars = verdict(rows)
    for name, bar in bars.items():
        print(f"{name}: {bar['value']} (bar {bar['bar']}): {'passed' if bar['passed'] else 'MISSED'}")
    print(f"written to {facts.write('scaling', {**facts.facts(seed=0), 'bars': bars, 'rows': rows})}")
    return int(not all(bar["passed"] for bar in bars.values()))


if __name__ == "__main__":
    sys.exit(main())
