"""Check every architecture: expected group kinds, and random subnets from mask to runtime.

``python -m benchmarks.coverage [NAME...]``. Every subnet: mask equals slice, predicted cost equals counted cost, it
trains a step, is saved and loaded; the first ones run in both runtimes. Exit status 1 when a bar is missed.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import facts
from benchmarks.coverage.architectures import Row, examine, examine_named
from benchmarks.coverage.building import Architecture, architectures

BARS = {"mismatches": 0, "complete": 0.97, "share": 0.85, "architectures": 70}

WIDTH = 160
"""Columns of the table where the output is a file."""


def totals(rows: Sequence[Row]) -> dict[str, Any]:
    """Silent mismatches, share of architectures with every expected kind, median prunable share, number that pass."""
    return {
        "mismatches": sum(len(row.findings.mismatches) for row in rows),
        "complete": round(statistics.mean(not row.missing for row in rows), 4),
        "share": round(statistics.median(row.share for row in rows), 4),
        "architectures": sum(row.status == "passed" for row in rows),
    }


def verdict(values: dict[str, Any]) -> dict[str, Any]:
    """Every bar with its value; mismatches at most, all others at least."""
    return {
        name: {"bar": bar, "value": value, "passed": value <= bar if name == "mismatches" else value >= bar}
        for name, bar in BARS.items()
        if (value := values[name]) is not None
    }


def table(rows: Sequence[Row]) -> Table:
    """All rows."""
    result = Table("architecture", "found", "missing", "prunable", "worst error", "status")
    for row in rows:
        share = f"{row.share:.1%}" if row.found else "-"
        error = f"{row.findings.error:.1e}" if row.findings.subnets else "-"
        result.add_row(row.name, ", ".join(row.found), ", ".join(row.missing), share, error, escape(row.status))
    return result


def _examined(
    known: Mapping[str, Architecture], names: Sequence[str], seeds: range, exports: int, jobs: int
) -> Iterator[Row]:
    """The rows as they are done; a single job stays in this process."""
    if jobs == 1:
        yield from (examine(known[name], seeds, exports) for name in names)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(examine_named, name, seeds, exports) for name in names]):
            yield future.result()


def main(arguments: list[str] | None = None) -> int:
    """Parse, check, print; write ``results/coverage.json`` when nothing was left out. 0 when every bar is passed."""
    known = architectures()
    parser = argparse.ArgumentParser(prog="benchmarks.coverage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures, by default all; nothing is stored")
    parser.add_argument("--subnets", type=int, default=10, help="random subnets per architecture")
    parser.add_argument("--exports", type=int, default=2, help="how many of them go through the runtimes")
    parser.add_argument("--no-export", dest="exports", action="store_const", const=0, help="the same as --exports 0")
    parser.add_argument("--seed", type=int, default=0, help="of the first subnet")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one thread each if several")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    seeds = range(given.seed, given.seed + given.subnets)
    names = given.names or list(known)
    done: dict[str, Row] = {}
    for row in _examined(known, names, seeds, given.exports, given.jobs):
        done[row.name] = row
        console.print(f"[{len(done)}/{len(names)}] {row.name}: {row.status} ({row.seconds:.0f} s)", markup=False)
    rows = [done[name] for name in names]
    values = totals(rows)
    bars = verdict(values if not given.names else {**values, "architectures": None})
    console.print(table(rows))
    for name, bar in bars.items():
        console.print(f"{name}: {bar['value']} (bar {bar['bar']}): {'passed' if bar['passed'] else 'MISSED'}")
    if not given.names:
        settings = {"subnets": given.subnets, "exports": given.exports}
        result = {**facts.facts(given.seed), **settings, "bars": bars, "rows": [row.to_dict() for row in rows]}
        console.print(f"written to {facts.write('coverage', result)}")
    return int(not all(bar["passed"] for bar in bars.values()))


if __name__ == "__main__":
    sys.exit(main())
