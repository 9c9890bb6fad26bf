"""One row of the table: an architecture from its module to ten checked subnets."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.coverage.building import Architecture, architectures, build
from benchmarks.coverage.invariants import Findings, check_archive, check_runtimes, check_slice, check_training
from compactor.frontend.exporting import export
from compactor.frontend.quiet import quiet
from compactor.ir.blocks import live_nodes
from compactor.ir.space import SearchSpace, space_of
from compactor.passes.canonicalize.canonicalize import canonical


@dataclass
class Row:
    """What an architecture showed. ``failure`` is the first line of the error that ended its run."""

    name: str
    expected: tuple[str, ...]
    found: tuple[str, ...] = ()
    groups: int = 0
    blocks: int = 0
    parameters: int = 0
    share: float = 0.0
    findings: Findings = field(default_factory=Findings)
    failure: str | None = None
    seconds: float = 0.0

    @property
    def missing(self) -> tuple[str, ...]:
        """Expected kinds that were not found."""
        return tuple(kind for kind in self.expected if kind not in self.found)

    @property
    def status(self) -> str:
        """``passed``, or what is wrong, worst first."""
        if self.findings.mismatches:
            return f"mismatch: {self.findings.mismatches[0]}"
        if self.failure is not None:
            return f"failed: {self.failure}"
        return f"missing {', '.join(self.missing)}" if self.missing else "passed"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "missing": self.missing, "status": self.status}


def examine(entry: Architecture, seeds: range, exports: int) -> Row:
    """Build, export, analyse, and check a random subnet per seed, the first ``exports`` of them in the runtimes too."""
    row = Row(entry.name, tuple(sorted(entry.expected)))
    started = time.perf_counter()
    try:
        with quiet():
            _examine(row, entry, seeds, exports)
    except Exception as error:  # one architecture must not stop the others
        row.failure = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    row.seconds = round(time.perf_counter() - started, 2)
    return row


def examine_named(name: str, seeds: range, exports: int) -> Row:
    """`examine`, for a process of its own that has one thread."""
    torch.set_num_threads(1)
    return examine(architectures()[name], seeds, exports)


def _examine(row: Row, entry: Architecture, seeds: range, exports: int) -> None:
    module, batch = build(entry)
    inputs = tuple(x[torch.tensor([0, 1, 0])] for x in batch)  # another batch size than it was exported at
    space = space_of(canonical(export(module, batch))[0])
    row.found = tuple(sorted({g.kind for g in space.groups} | ({"blocks"} if space.blocks else set())))
    row.groups, row.blocks = len(space.groups), len(space.blocks)
    row.parameters, row.share = space.program.cost().parameters, round(prunable(space), 4)
    for number, seed in enumerate(seeds):
        _subnet(row, space, seed, inputs, runtimes=number < exports)


def _subnet(row: Row, space: SearchSpace, seed: int, inputs: tuple[Tensor, ...], *, runtimes: bool) -> None:
    """Checks of one subnet; its seed goes into every mismatch."""
    found = row.findings
    before = len(found.mismatches)
    student = check_slice(space, space.sample(seed), inputs, found)
    check_training(student, inputs, found)
    check_archive(student, inputs, found)
    if runtimes:
        check_runtimes(student, inputs, found)
    found.mismatches[before:] = [f"{text} (subnet seed {seed})" for text in found.mismatches[before:]]


def prunable(space: SearchSpace) -> float:
    """Share of the trainable elements that some choice removes: they lie on a group's unit or go with a block."""
    program = space.program
    kept = {name: [np.ones(n, bool) for n in program.state[name].shape] for name in program.trainable}
    for group in space.groups:
        for name, dim, place in space.positions(group):
            if name in kept:
                kept[name][dim] &= place < 0
    live = live_nodes(program.graph, space.replaced(space.choose({}, [b.name for b in space.blocks])))
    alive = {str(n.target) for n in live if n.op == "get_attr"}
    stay = sum(int(np.prod([k.sum() for k in axes], dtype=np.int64)) for n, axes in kept.items() if n in alive)
    return 1 - stay / max(1, program.cost().parameters)
