"""Models on OpenVINO, without torch: what this machine and devices that are elsewhere open them with."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compactor.backends.shapes import Options, nominal_shapes
from compactor.errors import MissingRuntimeError

Arrays = Sequence[Any]


def load(
    files: Sequence[Path], precision: str, options: Options, *, batch: int | None = None
) -> Callable[[Arrays], list[Any]]:
    """A function from NumPy arrays, in the Program's order, to arrays. Raises `MissingRuntimeError`."""
    compiled, _ = compile_model(files[0], options, batch=batch)
    names, request = list(nominal_shapes(options, 1)), Request(compiled)

    def run(arrays: Arrays) -> list[Any]:
        request(dict(zip(names, arrays, strict=True)))
        return [array.copy() for array in request.outputs()]

    return run


class Request:
    """One reused inference request. Arrays stay bound: handed to ``infer``, they cost tens of microseconds each."""

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()
        self._count = len(compiled.outputs)
        self._bound: dict[str, Any] = {}

    def __call__(self, arrays: Mapping[str, Any]) -> None:
        """Infer from arrays by input name, sharing their memory where it can be."""
        if any(self._bound.get(name) is not array for name, array in arrays.items()):
            self._bind(arrays)
        self.request.infer()

    def outputs(self) -> list[Any]:
        """Of the last inference, where the runtime has them: the next one overwrites them."""
        return [self.request.get_output_tensor(i).data for i in range(self._count)]

    def _bind(self, arrays: Mapping[str, Any]) -> None:
        import numpy
        import openvino

        # Tensors hold no reference to the memory that they share.
        self._held = [numpy.require(array, requirements=("C", "W")) for array in arrays.values()]
        for name, array in zip(arrays, self._held, strict=True):
            self.request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        self._bound = dict(arrays)


def compile_model(
    path: Path, options: Options, *, threads: int | None = None, batch: int | None = None, counted: bool = False
) -> tuple[Any, str]:
    """The IR compiled for its device, or for the CPU where that is absent, and the name of the device.

    ``counted``: it keeps count of what every node takes. Raises `MissingRuntimeError`.
    """
    found = core()
    device = str(options["device"])
    device = device if device in found.available_devices else "CPU"
    model = found.read_model(path)
    if batch is not None or device == "NPU":
        model.reshape(nominal_shapes(options, batch or 1))
    settings = _settings(found, device, options, threads) | ({"PERF_COUNT": True} if counted else {})
    return found.compile_model(model, device, settings), device


@cache
def core() -> Any:
    """OpenVINO's one ``Core``. Raises `MissingRuntimeError`."""
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
    if device == "CPU":
        # Left alone, it rounds activations beside weights of few bits.
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if device == "CPU" and threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings
