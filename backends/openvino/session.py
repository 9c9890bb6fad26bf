"""A session on one reused OpenVINO inference request."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from compactor.backends.feeds import numpy_inputs, runtime_name, tensors


class OpenVINOSession:
    """A compiled model; inputs are shared with the runtime, outputs copied out of it."""

    def __init__(self, compiled: Any, names: list[str], device: str) -> None:
        self.compiled = compiled
        self._names = names
        self._device = device
        self._request = compiled.create_infer_request()

    @property
    def runtime(self) -> str:
        """Runtime, version, device and architecture."""
        return runtime_name("openvino", self._device)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs for inputs in the Program's order. Raises `InputError`."""
        found = self._request.infer(numpy_inputs(self._names, inputs), share_inputs=True, share_outputs=True)
        return tensors(found[i] for i in range(len(self.compiled.outputs)))
