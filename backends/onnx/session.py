"""A session of ONNX Runtime."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from compactor.backend import Session
from compactor.backends.feeds import numpy_inputs, runtime_name, tensors


class OrtSession(Session):
    """An inference session on the CPU provider."""

    def __init__(self, session: Any, names: list[str]) -> None:
        self.session = session
        self._names = names
        self._outputs = [value.name for value in session.get_outputs()]

    @property
    def runtime(self) -> str:
        """Runtime, version, device and architecture."""
        return runtime_name("onnxruntime", "CPU")

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs for inputs in the Program's order. Raises `InputError`."""
        return tensors(self.query(inputs)())

    def query(self, inputs: Sequence[Tensor]) -> Callable[[], Any]:
        """A run that leaves its outputs where the runtime has them."""
        arrays = numpy_inputs(self._names, inputs)
        return lambda: self.session.run(self._outputs, arrays)
