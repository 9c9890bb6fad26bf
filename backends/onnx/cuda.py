"""ONNX Runtime's CUDA provider: the same files as on a CPU, on a workstation's GPU."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from compactor import gpu
from compactor.backend import Loader, Lowered, Session, require
from compactor.backends.feeds import describe_shapes
from compactor.backends.onnx.backend import MODEL, open_onnx
from compactor.backends.onnx.export import write_onnx
from compactor.backends.onnx.runtime import CUDA
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.target import Target, lacking

PACKAGE = "onnxruntime-gpu"


class CudaBackend:
    """Lowers to one ONNX file and runs it on ONNX Runtime's CUDA provider; stateless.

    float32 is float32: TF32 is off. A latency holds the copies to the GPU and back. No profile: ONNX Runtime's trace
    tells when a kernel was started there, not what it took.
    """

    name = "cuda"
    rules = QuantRules("ONNX Runtime on CUDA")

    def installed(self) -> bool:
        """Whether sessions can be opened here: a GPU, its driver, and the build of ONNX Runtime for it."""
        try:
            version(PACKAGE)
        except PackageNotFoundError:
            return False
        return gpu.detect() is not None

    def supports(self, program: Program, target: Target) -> list[str]:
        """Reasons why this Program cannot be lowered for the target."""
        if program.precision in ("int8", "bfloat16"):
            return [f"ONNX Runtime's CUDA provider has no {program.precision} kernels for what models are made of"]
        return lacking(target, program.precision)

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Write ``model.onnx``. Raises `MissingRuntimeError` or `UnsupportedError`."""
        require(self, program, target)
        origins = write_onnx(program, folder / MODEL)
        options: dict[str, str | int | float | bool] = {"shapes": describe_shapes(program), "provider": CUDA}
        return Lowered(self.name, folder, (MODEL,), program.precision, options, origins)

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Load the model on the GPU. Raises `MissingRuntimeError` where there is none, or no runtime for it."""
        return open_onnx(lowered, threads=threads, batch=batch)

    def reference(self, lowered: Lowered) -> Session | None:
        """The same file on the CPU provider, where ONNX Runtime is installed."""
        if find_spec("onnxruntime") is None:
            return None
        return open_onnx(replace(lowered, options={"shapes": lowered.options["shapes"]}))

    def loader(self) -> Loader:
        """For devices that have ONNX Runtime alone."""
        return Loader(("compactor.backends.onnx.runtime", "compactor.backends.shapes"), "onnxruntime", "1.20")
