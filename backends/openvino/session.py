"""A session on one reused OpenVINO inference request, and what its nodes take."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from torch import Tensor

from compactor.backend import Executed, Session
from compactor.backends.feeds import numpy_inputs, runtime_name, tensors
from compactor.backends.openvino.runtime import Request
from compactor.backends.profiles import attributed, names_in, repeat

_WARMUP = 3
_MICROSECOND = timedelta(microseconds=1)
_TRUNCATED = 0.5
"""Microseconds that a whole number of them lacks on average: OpenVINO truncates each run's, and then their mean."""


class OpenVINOSession(Session):
    """A compiled model; inputs are shared with the runtime, outputs copied out of it."""

    def __init__(self, compiled: Any, names: list[str], device: str) -> None:
        self.compiled = compiled
        self._names = names
        self._device = device
        self._request = Request(compiled)

    @property
    def runtime(self) -> str:
        """Runtime, version, device and architecture."""
        return runtime_name("openvino", self._device)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs for inputs in the Program's order. Raises `InputError`."""
        self.query(inputs)()
        return tensors(self._request.outputs())

    def query(self, inputs: Sequence[Tensor]) -> Callable[[], Any]:
        """An inference that leaves its outputs where the runtime has them."""
        arrays = numpy_inputs(self._names, inputs)
        return lambda: self._request(arrays)

    def profile(self, inputs: Sequence[Tensor], seconds: float) -> list[Executed]:
        """What each node takes, the mean over all runs but the first few; compiled with ``PERF_COUNT`` only."""
        for _ in range(_WARMUP):
            self(inputs)
        before = self._counted()
        count = repeat(self.query(inputs), seconds)
        named = {op.get_friendly_name(): op.get_rt_info() for op in self.compiled.get_runtime_model().get_ordered_ops()}
        nodes = []
        for name, mean in self._counted().items():
            us = mean + (mean - before.get(name, mean)) * _WARMUP / count
            nodes.append((_layers(named.get(name)) or " ".join(names_in(name)[-1:]), max(us + _TRUNCATED, 0.0)))
        return attributed(nodes)

    def _counted(self) -> dict[str, float]:
        """Means over all runs so far of what was executed, in microseconds."""
        infos = [i for i in self._request.request.profiling_info if i.status == i.Status.EXECUTED]
        return {i.node_name: i.real_time / _MICROSECOND + _TRUNCATED for i in infos}


def _layers(notes: Any) -> str:
    """The names of the model's nodes that an executed one stands for; none for what OpenVINO added."""
    return "" if notes is None else str(notes["originalLayersNames"].astype(str))
