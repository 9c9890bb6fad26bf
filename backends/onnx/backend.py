"""The ONNX Runtime backend."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compactor.backend import Lowered, Session
from compactor.backends.feeds import describe_shapes, nominal_shapes
from compactor.backends.onnx.export import write_onnx
from compactor.backends.onnx.qdq import quantize_before_clamp
from compactor.backends.onnx.session import OrtSession
from compactor.errors import MissingRuntimeError, UnsupportedError
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.target import Target

MODEL = "model.onnx"


class OnnxBackend:
    """Lowers to one ONNX file and runs it on ONNX Runtime's CPU provider; stateless."""

    name = "onnx"
    rules = QuantRules("ONNX Runtime")

    def installed(self) -> bool:
        """Whether sessions can be opened here."""
        return find_spec("onnxruntime") is not None

    def supports(self, program: Program, target: Target) -> list[str]:
        """Reasons why this Program cannot be lowered for the target."""
        if program.precision == "bfloat16":
            return ["ONNX Runtime's CPU provider has no bfloat16 kernels"]
        if program.precision not in target.precisions:
            return [f"{target.name} does not run {program.precision}, only {', '.join(target.precisions)}"]
        return []

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Write ``model.onnx``. Raises `MissingRuntimeError` or `UnsupportedError`."""
        reasons = self.supports(program, target)
        if reasons:
            raise UnsupportedError(reasons[0], "choose another precision or target")
        write_onnx(program, folder / MODEL, rewrite=quantize_before_clamp)
        return Lowered(self.name, folder, (MODEL,), program.precision, {"shapes": describe_shapes(program)})

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Load the model. Raises `MissingRuntimeError`."""
        return open_onnx(lowered, threads=threads, batch=batch)

    def reference(self, lowered: Lowered) -> Session | None:
        """None: the model opens where ONNX Runtime is installed."""
        return None


def open_onnx(
    lowered: Lowered, *, threads: int | None = None, batch: int | None = None, optimize: bool = True
) -> Session:
    """A session of ONNX Runtime on the first file of any lowered model; all shapes nominal when ``batch`` is given."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingRuntimeError(
            f"ONNX Runtime cannot be loaded: {error}", "install it with pip install 'compactor[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    path = lowered.folder / lowered.files[0]
    if batch is not None:
        _fix_dimensions(options, path, nominal_shapes(lowered.options, batch))
    if lowered.precision == "int8":
        # Left alone, x86 turns some but not all int8 tensors into uint8, and kernels with one of each do not exist.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    # A Gemm made of MatMul and Add has an integer kernel for an integer bias only; our biases stay float.
    kept = ["MatMulAddFusion"] if lowered.precision == "int8" else []
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=kept)
    return OrtSession(session, list(nominal_shapes(lowered.options, 1)))


def _fix_dimensions(options: Any, path: Path, shapes: dict[str, list[int]]) -> None:
    import onnx

    for value in onnx.load(path).graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if dim.dim_param:
                options.add_free_dimension_override_by_name(dim.dim_param, size)
