"""Models on ONNX Runtime, without torch: what this machine and devices that are elsewhere open them with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compactor.backends.shapes import Options, nominal_shapes
from compactor.errors import MissingRuntimeError

Arrays = Sequence[Any]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def load(
    files: Sequence[Path], precision: str, options: Options, *, batch: int | None = None
) -> Callable[[Arrays], list[Any]]:
    """A function from NumPy arrays, in the Program's order, to arrays. Raises `MissingRuntimeError`."""
    session = open_session(files[0], precision, options, batch=batch)
    names, outputs = list(nominal_shapes(options, 1)), [value.name for value in session.get_outputs()]
    return lambda arrays: [a.copy() for a in session.run(outputs, dict(zip(names, arrays, strict=True)))]


def open_session(
    path: Path,
    precision: str,
    options: Options,
    *,
    threads: int | None = None,
    batch: int | None = None,
    optimize: bool = True,
    trace: Path | None = None,
) -> Any:
    """An ``InferenceSession`` on the CPU, or where ``provider`` in the options says; ``batch`` makes shapes nominal.

    With ``trace`` it records what every node takes, into a file whose name starts so. Raises `MissingRuntimeError`.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingRuntimeError(
            f"ONNX Runtime cannot be loaded: {error}", "install it with pip install 'compactor[onnx]'"
        ) from error
    settings = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    if threads is not None:
        settings.intra_op_num_threads = threads
    if trace is not None:
        settings.enable_profiling, settings.profile_file_prefix = True, str(trace)
    if batch is not None:
        _fix_dimensions(onnxruntime, settings, path, nominal_shapes(options, batch))
    if precision == "int8":
        # Left alone, x86 turns some but not all int8 tensors into uint8, and kernels with one of each do not exist.
        settings.add_session_config_entry("session.qdqisint8allowed", "1")
    # A Gemm made of MatMul and Add has an integer kernel for an integer bias only; our biases stay float.
    kept = ["MatMulAddFusion"] if precision == "int8" else []
    if options.get("provider") == CUDA:
        return _on_cuda(onnxruntime, path, settings)
    return onnxruntime.InferenceSession(path, settings, providers=[CPU], disabled_optimizers=kept)


def _on_cuda(onnxruntime: Any, path: Path, settings: Any) -> Any:
    """A session on the GPU or none: left alone, ONNX Runtime falls back to the CPU and says so in its log only."""
    if CUDA not in onnxruntime.get_available_providers():
        raise MissingRuntimeError(
            f"this build of ONNX Runtime ({onnxruntime.__version__}) has no CUDA provider",
            "put the one for GPUs in its place: pip uninstall onnxruntime, then pip install 'compactor[cuda]'",
        )
    if hasattr(onnxruntime, "preload_dlls"):  # finds the CUDA libraries that came with pip
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(path, settings, providers=[(CUDA, {"use_tf32": "0"}), CPU])
    if CUDA not in session.get_providers():
        raise MissingRuntimeError(
            "ONNX Runtime cannot use a GPU here",
            "it needs NVIDIA's driver (see nvidia-smi), CUDA and cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'",
        )
    return session


def _fix_dimensions(onnxruntime: Any, settings: Any, path: Path, shapes: dict[str, list[int]]) -> None:
    """Sizes for the free dimensions, whose names a first, unprepared session tells: the device has no onnx package."""
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain.add_session_config_entry("session.disable_prepacking", "1")
    plain.intra_op_num_threads, plain.log_severity_level = 1, 3
    for value in onnxruntime.InferenceSession(path, plain, providers=[CPU]).get_inputs():
        for name, size in zip(value.shape, shapes[value.name], strict=True):
            if isinstance(name, str):
                settings.add_free_dimension_override_by_name(name, size)
