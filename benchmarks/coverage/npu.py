"""Would Intel's NPU take it? The checker's verdict on every architecture, in float16 at batch 1.

``python -m benchmarks.coverage.npu [NAME...]``. Writes ``results/npu.json`` when nothing was left out. No NPU is used:
the verdict is what `compactor.backends.openvino.npu` reads off the model before a build lowers it.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import facts
from benchmarks.coverage.building import Architecture, architectures, build
from compactor.backends.feeds import describe_shapes
from compactor.backends.onnx.export import write_onnx
from compactor.backends.openvino import npu
from compactor.backends.openvino.runtime import core
from compactor.backends.shapes import nominal_shapes
from compactor.frontend.exporting import export
from compactor.frontend.quiet import quiet
from compactor.ir.program import Program
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.cast import cast_program


@dataclass(frozen=True)
class Verdict:
    """``supported``, or the reasons why not; ``failure`` is the first line of an error before there was a verdict."""

    name: str
    supported: bool
    reasons: tuple[str, ...] = ()
    failure: str | None = None


def verdict(name: str, entry: Architecture) -> Verdict:
    """Of one architecture."""
    try:
        with quiet():
            found = reasons(prepared(entry))
    except Exception as error:  # one architecture must not stop the others
        return Verdict(name, False, (), f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}")
    return Verdict(name, not found, tuple(found))


def prepared(entry: Architecture) -> Program:
    """What a build for an NPU would lower."""
    module, batch = build(entry)
    return cast_program(folded_program(canonical(export(module, batch))[0])[0], "float16")[0]


def reasons(program: Program) -> list[str]:
    """Why the NPU compiler would refuse it."""
    shapes = nominal_shapes({"shapes": describe_shapes(program)}, 1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(program, path)
        return npu.reasons(core().read_model(path), shapes)


def _named(name: str) -> Verdict:
    torch.set_num_threads(1)
    return verdict(name, architectures()[name])


def _verdicts(names: Sequence[str], jobs: int) -> Iterator[Verdict]:
    if jobs == 1:
        yield from map(_named, names)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(_named, names)


def table(rows: Sequence[Verdict]) -> Table:
    """All verdicts."""
    result = Table("architecture", "verdict")
    for row in rows:
        result.add_row(row.name, escape(_said(row)))
    return result


def _said(row: Verdict) -> str:
    return "supported" if row.supported else row.failure or "; ".join(row.reasons)


def main(arguments: list[str] | None = None) -> int:
    """Parse, judge, print, write. 0 when every architecture has a verdict."""
    known = architectures()
    parser = argparse.ArgumentParser(prog="benchmarks.coverage.npu", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures, by default all; nothing is stored")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one thread each")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    names = given.names or list(known)
    rows = []
    for row in _verdicts(names, given.jobs):
        rows.append(row)
        console.print(f"[{len(rows)}/{len(names)}] {row.name}: {_said(row)}", markup=False)
    console.print(table(rows))
    counts = {
        "supported": sum(row.supported for row in rows),
        "refused": sum(bool(row.reasons) for row in rows),
        "failed": sum(row.failure is not None for row in rows),
    }
    console.print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    if not given.names:
        result = {**facts.facts(0), "precision": "float16", **counts, "rows": [asdict(row) for row in rows]}
        console.print(f"written to {facts.write('npu', result)}")
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
