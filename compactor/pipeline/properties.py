"""Properties of Programs that passes require and ensure, and the checks of those that can be checked."""

from collections.abc import Callable, Iterable

from compactor import registry
from compactor.errors import InternalError
from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.pipeline.passes import Pass

_BEFORE_NORM = {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default}


def _unfolded(program: Program) -> str | None:
    for node in program.graph.nodes:
        source = node.args[0] if node.target is aten.batch_norm.default else None
        if source is not None and source.target in _BEFORE_NORM and len(source.users) == 1:
            return f"batch norm {node.name} still follows convolution {source.name}"
    return None


def _unquantized(program: Program) -> str | None:
    if program.precision != "int8":
        return f"its precision is {program.precision}"
    found = any("quantized_decomposed" in str(node.target) for node in program.graph.nodes)
    return None if found else "its graph holds no quantize or dequantize node"


CHECKS: dict[str, Callable[[Program], str | None]] = {"batchnorm_folded": _unfolded, "quantized": _unquantized}
"""For a property, what contradicts it in a Program, or None."""


def flow(held: frozenset[str], step: Pass) -> frozenset[str]:
    """The properties that hold after a pass."""
    return (held - step.breaks) | step.ensures


def initial(program: Program) -> frozenset[str]:
    """The properties that a Program's own history gives it; a fresh export has none."""
    held: frozenset[str] = frozenset()
    known = registry.names("compactor.passes")
    for record in program.history:
        if record["pass"] in known:
            kind: type[Pass] = registry.load("compactor.passes", record["pass"])
            held = (held - kind.breaks) | kind.ensures
    return held


def check(program: Program, held: Iterable[str]) -> None:
    """Raise `InternalError` when a property that should hold does not."""
    for name in sorted(held):
        reason = CHECKS[name](program) if name in CHECKS else None
        if reason is not None:
            raise InternalError(f"the Program should be {name!r}, but {reason}")
