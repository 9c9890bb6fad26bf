"""A session of ONNX Runtime."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from compactor.backends.feeds import numpy_inputs, runtime_name, tensors
from compactor.backends.onnx.runtime import CUDA


class OrtSession:
    """An inference session on the CPU provider or the CUDA provider."""

    def __init__(self, session: Any, names: list[str]) -> None:
        self.session = session
        self._names = names
        self._outputs = [value.name for value in session.get_outputs()]

    @property
    def runtime(self) -> str:
        """Runtime, version, device and architecture."""
        import onnxruntime

        device = "CUDA" if CUDA in self.session.get_providers() else "CPU"
        return runtime_name("onnxruntime", device, onnxruntime.__version__)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs for inputs in the Program's order. Raises `InputError`."""
        return tensors(self.session.run(self._outputs, numpy_inputs(self._names, inputs)))
