"""The OpenVINO backend."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from compactor.backend import Executed, Loader, Lowered, Session, require
from compactor.backends.feeds import describe_shapes
from compactor.backends.onnx.export import write_onnx
from compactor.backends.openvino import npu
from compactor.backends.openvino.convert import save_ir
from compactor.backends.openvino.packed import pack_weights
from compactor.backends.openvino.runtime import compile_model, core
from compactor.backends.openvino.session import OpenVINOSession
from compactor.backends.shapes import nominal_shapes
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.ir.weightonly import packable
from compactor.ir.widen import widen
from compactor.target import Target, lacking

MODEL = "model.xml", "model.bin"
_HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class OpenVINOBackend:
    """Lowers to OpenVINO IR (``model.xml``, ``model.bin``) through ONNX; stateless.

    The precision hint is always explicit: machines with bfloat16 units silently use them for float32 models otherwise.
    """

    name = "openvino"
    rules = QuantRules("OpenVINO", weight_bits=(8, 4))

    def installed(self) -> bool:
        """Whether sessions can be opened here."""
        return find_spec("openvino") is not None

    def supports(self, program: Program, target: Target) -> list[str]:
        """Reasons why this Program cannot be lowered for the target."""
        return lacking(target, *program.arithmetic.split("+"))

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Write the IR. Raises `MissingRuntimeError`, or `UnsupportedError` naming a node that an NPU cannot run."""
        require(self, program, target)
        read, options = core().read_model, self._options(program, target)
        with TemporaryDirectory(dir=folder, prefix=".onnx-") as temporary:
            path = Path(temporary) / "model.onnx"
            marks = write_onnx(widen(program), path)
            model = read(path)
            pack_weights(model, packable(program))
            if options["device"] == "NPU":
                npu.check(model, nominal_shapes(options, 1), target.name)
            origins = save_ir(model, folder / MODEL[0], program.precision, marks)
        return Lowered(self.name, folder, MODEL, program.precision, options, origins)

    def _options(self, program: Program, target: Target) -> dict[str, str | int | float | bool]:
        # The Protocol of targets does not know OpenVINO's device names; NPU profiles carry it in theirs.
        device = "NPU" if "npu" in target.name.split("-") else "CPU"
        hint = _HINTS[program.between if program.precision == "int8" else program.precision]
        return {"device": device, "precision_hint": hint, "shapes": describe_shapes(program)}

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Load the IR on its device, or on the CPU where that device is absent. Raises `MissingRuntimeError`."""
        return _open(lowered, threads, batch)

    def profile(self, lowered: Lowered, inputs: Sequence[Tensor], *, seconds: float) -> Sequence[Executed]:
        """What each node takes at batch 1. Raises `MissingRuntimeError`."""
        return _open(lowered, None, 1, counted=True).profile(inputs, seconds)

    def reference(self, lowered: Lowered) -> Session | None:
        """None: the model opens where OpenVINO is installed."""
        return None

    def loader(self) -> Loader:
        """For devices that have OpenVINO alone."""
        return Loader(("compactor.backends.openvino.runtime", "compactor.backends.shapes"), "openvino", "2025.0")


def _open(lowered: Lowered, threads: int | None, batch: int | None, *, counted: bool = False) -> OpenVINOSession:
    path = lowered.folder / lowered.files[0]
    compiled, device = compile_model(path, lowered.options, threads=threads, batch=batch, counted=counted)
    return OpenVINOSession(compiled, list(nominal_shapes(lowered.options, 1)), device)
