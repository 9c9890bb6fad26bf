"""The TensorRT backend: a strongly typed ONNX file and what builds its engine on the device."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compactor.backend import Loader, Lowered, Session, require
from compactor.backends.feeds import describe_shapes
from compactor.backends.onnx.backend import open_onnx
from compactor.backends.onnx.export import write_onnx
from compactor.backends.onnx.qdq import transpose_weights
from compactor.backends.shapes import nominal_shapes
from compactor.backends.tensorrt.narrow import halve_scales, narrow
from compactor.backends.tensorrt.rules import check_quantizers
from compactor.errors import MissingRuntimeError
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.ir.weightonly import packable
from compactor.target import Target, lacking

MODEL, BUILDER, SETTINGS = "model.onnx", "build_engine.py", "build.json"


class TensorRTBackend:
    """Lowers for NVIDIA devices; stateless.

    Engines are built on the device that runs them, so no session opens here: `reference` runs the same ONNX file on
    ONNX Runtime for parity, and ``build_engine.py`` in the folder completes the model on the device.
    """

    name = "tensorrt"
    rules = QuantRules("TensorRT", signed=True)

    def installed(self) -> bool:
        """False: engines run through ``build_engine.py`` on the device, not in this process."""
        return False

    def supports(self, program: Program, target: Target) -> list[str]:
        """Reasons why this Program cannot be lowered for the target."""
        if "bfloat16" in program.arithmetic:
            return ["no runtime here has bfloat16 kernels to check the ONNX file with"]
        if packable(program):
            return ["weights of 4 bits are not lowered for TensorRT"]
        return lacking(target, program.precision)

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Write ``model.onnx``, ``build_engine.py`` and ``build.json``.

        Raises `MissingRuntimeError`, or `UnsupportedError` naming a quantizer that TensorRT would refuse.
        """
        require(self, program, target)
        mixed = program.precision == "int8" and "float16" in target.precisions
        write_onnx(narrow(program) if mixed else program, folder / MODEL, rewrite=_mixed if mixed else check_quantizers)
        shapes = describe_shapes(program)
        (folder / BUILDER).write_text((Path(__file__).parent / BUILDER).read_text())
        (folder / SETTINGS).write_text(_settings(folder / MODEL, program.precision, shapes))
        return Lowered(self.name, folder, (MODEL, BUILDER, SETTINGS), program.precision, {"shapes": shapes})

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Never opens. Raises `MissingRuntimeError` that names ``build_engine.py``."""
        raise MissingRuntimeError(
            f"TensorRT engines are built and run on the device, and {lowered.files[0]} is not on it",
            f"copy the folder to the device and run: python3 {BUILDER}",
        )

    def reference(self, lowered: Lowered) -> Session | None:
        """The same ONNX file on ONNX Runtime, where that is installed.

        As written: ONNX Runtime's optimiser quantizes biases with a float16 scale, which underflows.
        """
        return open_onnx(lowered, optimize=False) if find_spec("onnxruntime") is not None else None

    def loader(self) -> Loader:
        """For devices that have TensorRT alone; the engine is built there."""
        modules = ("runtime", "build_engine")
        own = tuple(f"compactor.backends.tensorrt.{name}" for name in modules)
        return Loader((*own, "compactor.backends.shapes"), "tensorrt", "10.0")


def _mixed(graph: Any) -> None:
    halve_scales(graph)
    transpose_weights(graph)  # the casts between are gone only now
    check_quantizers(graph)


def _settings(path: Path, precision: str, shapes: str) -> str:
    record = {
        "model": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "precision": precision,
        "inputs": nominal_shapes({"shapes": shapes}, -1),
    }
    return json.dumps(record, indent=2, sort_keys=True) + "\n"
