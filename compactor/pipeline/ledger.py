"""Latencies that decisions rest on, remembered: a resumed or repeated build decides the same.

Reported latencies never come from here; they are measured afresh.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import fx

from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.pipeline.disk import write_json
from compactor.pipeline.store import key_of
from compactor.pipeline.versions import machine, tool_versions
from compactor.target import Target


class Ledger:
    """Measured latencies by structure, target, tool versions and machine, one small file each."""

    def __init__(self, root: Path, target: Target) -> None:
        self.folder = root / "ledger"
        self._target = target

    def __call__(self, program: Program, measure: Callable[[], Latency]) -> Latency:
        """The remembered latency of a Program of this structure, or the result of ``measure``, remembered."""
        path = self.folder / f"{self.key(program)}.json"
        known = _read(path)
        if known is not None:
            return known
        latency = measure()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, latency.to_dict())
        return latency

    def key(self, program: Program) -> str:
        """sha256 over all that the latency depends on; values of weights do not."""
        return key_of(
            {
                "structure": structure(program),
                "target": self._target.fingerprint,
                "versions": tool_versions(self._target.backend),
                "machine": machine(),
            }
        )


def _read(path: Path) -> Latency | None:
    try:
        return Latency(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # not measured yet, or not readable: it is measured (again)


def structure(program: Program) -> str:
    """sha256 over graph, shapes and dtypes: equal for Programs that take equally long."""
    numbers = {node: f"%{i}" for i, node in enumerate(program.graph.nodes)}
    names = {name: f"#{i}" for i, name in enumerate(program.state)}
    digest = hashlib.sha256(program.arithmetic.encode())
    for node in program.graph.nodes:
        target = names[str(node.target)] if node.op == "get_attr" else str(node.target)
        target = "" if node.op == "placeholder" else target
        digest.update(f"{node.op} {target} {_text(node.args, numbers)} {_text(dict(node.kwargs), numbers)}\n".encode())
    digest.update(json.dumps([[list(t.shape), str(t.dtype)] for t in program.state.values()]).encode())
    digest.update(json.dumps([[list(shape), str(dtype)] for shape, dtype in program.input_shapes(1)]).encode())
    return digest.hexdigest()


def _text(value: Any, numbers: dict[fx.Node, str]) -> str:
    if isinstance(value, fx.Node):
        return numbers[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(v, numbers) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_text(v, numbers)}" for k, v in sorted(value.items())) + "}"
    return "float" if isinstance(value, float) else repr(value)  # scales and epsilons cost the same whatever they are
