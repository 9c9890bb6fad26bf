"""Shape inference: runs a graph on fake tensors, nothing computed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from compactor.errors import InternalError
from compactor.ir.graphs import tensors_of

Shape = tuple[int, ...]


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.Graph, state: Mapping[str, Tensor]) -> None:
        super().__init__(tensors_of(graph, state), garbage_collect_values=True, graph=graph)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            raise InternalError(f"node {n.name} ({n.target}) does not fit its inputs: {error}") from error
        self.values[n] = value
        return value


def infer(graph: fx.Graph, state: dict[str, Tensor], inputs: list[tuple[Shape, torch.dtype]]) -> dict[fx.Node, Any]:
    """Fake values (tensors, ints, tuples of them) of every node for inputs of these shapes.

    Raises `InternalError` naming the first node whose inputs do not fit.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=False)
    fake_state = {
        name: mode.from_tensor(state[name].detach(), static_shapes=True)
        for name in dict.fromkeys(str(n.target) for n in graph.nodes if n.op == "get_attr")
    }
    recorder = _Recorder(graph, fake_state)
    with mode, torch.no_grad():
        recorder.run(*(torch.empty(shape, dtype=dtype) for shape, dtype in inputs))
    return recorder.values
