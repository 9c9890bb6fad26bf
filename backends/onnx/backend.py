"""The ONNX Runtime backend."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from compactor.backend import Executed, Loader, Lowered, Session, require
from compactor.backends.feeds import describe_shapes
from compactor.backends.onnx.export import write_onnx
from compactor.backends.onnx.nbits import pack_weights
from compactor.backends.onnx.qdq import one_sign, quantize_before_clamp
from compactor.backends.onnx.runtime import open_session
from compactor.backends.onnx.session import OrtSession
from compactor.backends.onnx.trace import executed
from compactor.backends.profiles import repeat
from compactor.backends.shapes import nominal_shapes
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.ir.weightonly import packable
from compactor.target import Target, lacking

MODEL = "model.onnx"
_SETTLED = 0.08
"""Seconds that a new session's threads need to find cores of their own."""


class OnnxBackend:
    """Lowers to one ONNX file and runs it on ONNX Runtime's CPU provider; stateless."""

    name = "onnx"
    rules = QuantRules("ONNX Runtime", weight_bits=(4,))

    def installed(self) -> bool:
        """Whether sessions can be opened here."""
        return find_spec("onnxruntime") is not None

    def supports(self, program: Program, target: Target) -> list[str]:
        """Reasons why this Program cannot be lowered for the target."""
        if "bfloat16" in program.arithmetic:
            return ["ONNX Runtime's CPU provider has no bfloat16 kernels"]
        if "+" in program.arithmetic:
            return ["ONNX Runtime computes in float32 between quantizers"]
        return lacking(target, program.precision)

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Write ``model.onnx``. Raises `MissingRuntimeError` or `UnsupportedError`."""
        require(self, program, target)
        weights = packable(program)

        def rewrite(graph: Any) -> None:
            quantize_before_clamp(graph)
            one_sign(graph)
            pack_weights(graph, weights)

        origins = write_onnx(program, folder / MODEL, rewrite=rewrite)
        return Lowered(self.name, folder, (MODEL,), program.precision, {"shapes": describe_shapes(program)}, origins)

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Load the model. Raises `MissingRuntimeError`."""
        return open_onnx(lowered, threads=threads, batch=batch)

    def profile(self, lowered: Lowered, inputs: Sequence[Tensor], *, seconds: float) -> Sequence[Executed]:
        """What each node takes at batch 1. Raises `MissingRuntimeError`."""
        with TemporaryDirectory() as folder:
            session = open_onnx(lowered, batch=1, trace=Path(folder) / "trace")
            repeat(session.query(inputs), _SETTLED + seconds)
            return executed(session.session.end_profiling(), _SETTLED)

    def reference(self, lowered: Lowered) -> Session | None:
        """None: the model opens where ONNX Runtime is installed."""
        return None

    def loader(self) -> Loader:
        """For devices that have ONNX Runtime alone."""
        return Loader(("compactor.backends.onnx.runtime", "compactor.backends.shapes"), "onnxruntime", "1.20")


def open_onnx(
    lowered: Lowered,
    *,
    threads: int | None = None,
    batch: int | None = None,
    optimize: bool = True,
    trace: Path | None = None,
) -> OrtSession:
    """A session of ONNX Runtime on the first file of any lowered model; all shapes nominal when ``batch`` is given.

    With ``trace`` it records what every node takes, into a file whose name starts so.
    """
    path = lowered.folder / lowered.files[0]
    session = open_session(
        path, lowered.precision, lowered.options, threads=threads, batch=batch, optimize=optimize, trace=trace
    )
    return OrtSession(session, list(nominal_shapes(lowered.options, 1)))
