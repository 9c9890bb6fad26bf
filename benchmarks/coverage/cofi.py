"""The same `prune.cofi` on one architecture of every family of the coverage table, or on any that are named.

``python -m benchmarks.coverage.cofi [NAME...]``. A few steps on random inputs to half of the multiply-accumulates. The
student that is sliced from the gates must compute what the same subnet computes when it is masked, and meet the limit.
Exit status 1 when one does not, or when an error ends a run; outputs that are no class logits are refused, which counts
as neither.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import facts
from benchmarks.coverage.building import Architecture, architectures, build
from benchmarks.coverage.invariants import Findings
from compactor.errors import UnsupportedError
from compactor.frontend.exporting import export
from compactor.frontend.quiet import quiet
from compactor.ir.masking import mask_program
from compactor.ir.program import Program
from compactor.ir.subnet import Subnet
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.prune.cofi import CofiConfig, CofiPruning
from tests.passes.prune.support import around

FAMILIES = (
    "vgg", "resnet", "mobilenet_v2", "densenet", "shufflenet", "resnext", "convnext", "efficientnet",
    "vit", "swin", "mobilevit", "levit", "mlp_mixer",
    "bert", "deberta_v2", "albert", "gpt2", "llama", "falcon", "t5_encoder", "encoder_decoder",
    "ast", "wav2vec2", "conformer", "lstm", "two_inputs", "einsum",
    "unet", "detector",
)  # fmt: skip

SAMPLES, BATCH, SPEEDUP = 16, 8, 2.0


class Watched(CofiPruning):
    """Remembers what was sliced, before it is tuned."""

    sliced: Program
    masked: Program

    def _sliced(self, program: Program, student: Any, groups: Any, aim: Any) -> tuple[Program, Subnet]:
        self.sliced, subnet = super()._sliced(program, student, groups, aim)
        with torch.no_grad():
            self.masked = mask_program(program.with_state(student.gated.folded(student.gates.values())), subnet)
        return self.sliced, subnet


@dataclass
class Row:
    """What an architecture showed; ``share`` is of the multiply-accumulates, after half was asked for."""

    name: str
    status: str = "passed"
    error: float = 0.0
    rounding: int = 0
    share: float = 0.0
    gates: int = 0
    seconds: float = 0.0


def examine(entry: Architecture, layerwise: float = 0.0) -> Row:
    """Prune one architecture."""
    row, started = Row(entry.name), time.perf_counter()
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            _examine(row, entry, Path(folder), layerwise)
    except UnsupportedError as error:
        row.status = f"refused: {error.message}"
    except Exception as error:  # one architecture must not stop the others
        row.status = f"failed: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
    row.seconds = round(time.perf_counter() - started, 1)
    return row


def _examine(row: Row, entry: Architecture, folder: Path, layerwise: float) -> None:
    module, batch = build(entry)
    model = canonical(export(module, batch))[0]
    config = CofiConfig(
        constraint="macs", speedup=SPEEDUP, multiple=1, smallest=0.05, batch=BATCH, prune_epochs=8, epochs=1, views=1,
        layerwise=layerwise,
    )  # fmt: skip
    step = Watched(config)
    found = step.run(model, around(model, folder, samples=SAMPLES)).metrics
    findings = Findings()
    findings.compare(step.sliced, step.masked, tuple(x[torch.tensor([0, 1, 0])] for x in batch))
    row.error, row.rounding = findings.error, findings.rounding
    row.share = round(found["achieved"] / found["whole"], 4)
    row.gates = sum(len(kept) for kept in found["subnet"]["kept"].values()) + len(found["subnet"]["dropped"])
    findings.expect(found["achieved"] <= found["asked"], f"{found['achieved']:g} MACs, {found['asked']:g} asked")
    if findings.mismatches:
        row.status = f"mismatch: {findings.mismatches[0]}"


def verdict(rows: Sequence[Row]) -> dict[str, Any]:
    """How many pass, of those whose outputs are class logits."""
    wanted = [row for row in rows if not row.status.startswith("refused")]
    passed = sum(row.status == "passed" for row in wanted)
    return {"bar": len(wanted), "value": passed, "passed": passed == len(wanted)}


def main(arguments: list[str] | None = None) -> int:
    """Run, print; write ``results/cofi.json`` when nothing was left out."""
    known = architectures()
    parser = argparse.ArgumentParser(prog="benchmarks.coverage.cofi", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures, by default one per family")
    parser.add_argument("--layerwise", type=float, default=0.0, help="weight of hidden states; nothing is stored")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    rows = []
    for name in given.names or FAMILIES:
        rows.append(row := examine(known[name], given.layerwise))
        print(f"{name}: {row.status}, {row.share:.1%} of the MACs, error {row.error:.1e} ({row.seconds} s)", flush=True)
    bar = verdict(rows)
    print(f"passed: {bar['value']} (bar {bar['bar']}): {'passed' if bar['passed'] else 'MISSED'}")
    if not given.names and not given.layerwise:
        result = {**facts.facts(0), "families": bar, "rows": [asdict(row) for row in rows]}
        print(f"written to {facts.write('cofi', result)}")
    return int(not bar["passed"])


if __name__ == "__main__":
    sys.exit(main())
