"""The OpenVINO backend."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compactor.backend import Lowered, Session
from compactor.backends.feeds import Options, describe_shapes, nominal_shapes
from compactor.backends.onnx.export import write_onnx
from compactor.backends.openvino.convert import save_ir
from compactor.backends.openvino.session import OpenVINOSession
from compactor.errors import MissingRuntimeError, UnsupportedError
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.ir.widen import widen
from compactor.target import Target

MODEL = "model.xml", "model.bin"
_HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}


class OpenVINOBackend:
    """Lowers to OpenVINO IR (``model.xml``, ``model.bin``) through ONNX; stateless.

    The precision hint is always explicit: machines with bfloat16 units silently use them for float32 models otherwise.
    """

    name = "openvino"
    rules = QuantRules("OpenVINO")

    def installed(self) -> bool:
        """Whether sessions can be opened here."""
        return find_spec("openvino") is not None

    def supports(self, program: Program, target: Target) -> list[str]:
        """Reasons why this Program cannot be lowered for the target."""
        if program.precision not in target.precisions:
            return [f"{target.name} does not run {program.precision}, only {', '.join(target.precisions)}"]
        return []

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Write the IR. Raises `MissingRuntimeError` or `UnsupportedError`."""
        reasons = self.supports(program, target)
        if reasons:
            raise UnsupportedError(reasons[0], "choose another precision or target")
        core = _core()
        with TemporaryDirectory(dir=folder, prefix=".onnx-") as temporary:
            path = Path(temporary) / "model.onnx"
            write_onnx(widen(program), path)
            save_ir(core.read_model(path), folder / MODEL[0], program.precision)
        return Lowered(self.name, folder, MODEL, program.precision, self._options(program, target))

    def _options(self, program: Program, target: Target) -> dict[str, str | int | float | bool]:
        # The Protocol of targets does not know OpenVINO's device names; NPU profiles carry it in theirs.
        device = "NPU" if "npu" in target.name.split("-") else "CPU"
        return {"device": device, "precision_hint": _HINTS[program.precision], "shapes": describe_shapes(program)}

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Load the IR on its device, or on the CPU where that device is absent. Raises `MissingRuntimeError`."""
        core = _core()
        device = str(lowered.options["device"])
        device = device if device in core.available_devices else "CPU"
        model = core.read_model(lowered.folder / lowered.files[0])
        names = list(nominal_shapes(lowered.options, 1))
        if batch is not None or device == "NPU":
            model.reshape(nominal_shapes(lowered.options, batch or 1))
        compiled = core.compile_model(model, device, _settings(core, device, lowered.options, threads))
        return OpenVINOSession(compiled, names, device)

    def reference(self, lowered: Lowered) -> Session | None:
        """None: the model opens where OpenVINO is installed."""
        return None


@cache
def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingRuntimeError(
            f"OpenVINO cannot be loaded: {error}", "install it with pip install 'compactor[openvino]'"
        ) from error
    return openvino.Core()


def _settings(core: Any, device: str, options: Options, threads: int | None) -> dict[str, Any]:
    hint = str(options["precision_hint"])
    if hint == "f16" and "FP16" not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        hint = "f32"  # The plugin would take bfloat16 instead, which is less exact than what was asked for.
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if device == "CPU" and threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings
