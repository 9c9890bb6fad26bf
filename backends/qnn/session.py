"""A session on Hexagon's emulator."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from compactor.backend import Session
from compactor.backends.feeds import numpy_inputs, tensors
from compactor.backends.qnn import environment


class EmulatorSession(Session):
    """A lowered model on the emulator that comes with Qualcomm's runtime; every call starts it anew.

    It computes what the NPU computes, in integers and float16, and takes seconds: no latency is measured on it.
    """

    def __init__(self, model: Path, options: dict[str, str], names: list[str]) -> None:
        self._model, self._options, self._names = model, options, names
        self._versions: dict[str, str] = {}

    @property
    def runtime(self) -> str:
        """Runtime and version; versions are known after the first call."""
        return f"onnxruntime-qnn {self._versions.get('onnxruntime_qnn', '')} (HTP emulator)"

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs for inputs in the Program's order, sample by sample. Raises `InputError`."""
        arrays = numpy_inputs(self._names, inputs)
        found, self._versions = environment.run(self._model, self._options, list(arrays.values()))
        return tensors(found)


class SampleBySample(Session):
    """A session of a model that has a batch of one, for any number of samples."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def runtime(self) -> str:
        """The session's."""
        return self._session.runtime

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs of the samples, joined. Raises `InputError`."""
        rows = [self._session([values[i : i + 1] for values in inputs]) for i in range(len(inputs[0]))]
        return tuple(torch.cat(column) for column in zip(*rows, strict=True))
