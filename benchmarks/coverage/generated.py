"""Random graphs from the strategy of the tests: mask equals slice and predicted cost equals counted cost on each.

``python -m benchmarks.coverage.generated [--count 2000] [--seed 0]``. The same count and seed give the same graphs.
Exit status 1 on a mismatch or an error.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import facts
from benchmarks.coverage.invariants import Findings, check_slice
from compactor.frontend.quiet import quiet
from compactor.ir.space import SearchSpace
from tests import steps
from tests.strategies import Recipe, recipes

_STEPS = tuple(name for name, kind in vars(steps).items() if is_dataclass(kind) and name != "Keeping")
_COMPILED = 200
"""Graphs after which what torch keeps of earlier exports is dropped."""


@dataclass
class Totals:
    """What all graphs showed; every mismatch and error comes with the recipe and the subnet's seed that repeat it."""

    graphs: int = 0
    distinct: set[tuple[Recipe, int]] = field(default_factory=set)
    groups: int = 0
    blocks: int = 0
    error: float = 0.0
    rounding: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def check(self, recipe: Recipe, subnet: int) -> None:
        """Check one graph."""
        self.graphs += 1
        text = repr(recipe)
        self.distinct.add((recipe, subnet))
        self.steps.update({name for name in _STEPS if f"{name}(" in text})
        findings = Findings()
        try:
            space = SearchSpace(recipe.program())
            check_slice(space, space.sample(subnet), space.program.example_inputs(3, subnet), findings)
            self.groups, self.blocks = self.groups + len(space.groups), self.blocks + len(space.blocks)
        except Exception as error:  # one graph must not stop the others
            first = (str(error).strip().splitlines() or [""])[0]
            self.errors.append(f"{type(error).__name__}: {first} ({text}, seed {subnet})")
        self.error, self.rounding = max(self.error, findings.error), self.rounding + findings.rounding
        self.mismatches += [f"{mismatch} ({text}, seed {subnet})" for mismatch in findings.mismatches]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: counts first, then what went wrong."""
        return {
            "graphs": self.graphs,
            "distinct": len(self.distinct),
            "groups": self.groups,
            "blocks": self.blocks,
            "worst_error": self.error,
            "rounding": self.rounding,
            "graphs_with": dict(sorted(self.steps.items())),
            "mismatches": self.mismatches,
            "errors": self.errors,
        }


def run(count: int, first: int, console: Console) -> Totals:
    """Check ``count`` graphs."""
    totals = Totals()

    @seed(first)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(recipe=recipes(), subnet=st.integers(0, 1000))
    def check(recipe: Recipe, subnet: int) -> None:
        totals.check(recipe, subnet)
        if totals.graphs % _COMPILED == 0:
            torch._dynamo.reset()
            wrong = f"{len(totals.mismatches)} mismatches, {len(totals.errors)} errors"
            last = (totals.mismatches + totals.errors)[-1:]
            console.print(f"{totals.graphs} of {count}: {wrong}", *last, markup=False)

    with quiet():
        check()
    return totals


def main(arguments: list[str] | None = None) -> int:
    """Parse, check, print, write ``results/generated.json``."""
    parser = argparse.ArgumentParser(prog="benchmarks.coverage.generated", description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    found = run(chosen.count, chosen.seed, console).to_dict()
    console.print(json.dumps(found, indent=2), markup=False)
    console.print(f"written to {facts.write('generated', {**facts.facts(chosen.seed), **found})}")
    return int(bool(found["mismatches"] or found["errors"]))


if __name__ == "__main__":
    sys.exit(main())
