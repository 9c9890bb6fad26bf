"""The static twin of a Program that NNCF works on: sizes are literals, every node carries its shape."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compactor.ir import graphs
from compactor.ir.program import Program
from compactor.ir.shapes import infer


def static_twin(program: Program, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """A module for inputs of exactly these shapes, with its own weights; nodes keep their names.

    NNCF counts input ports without sizes, so a graph with symbolic ones misleads it. A tensor that several nodes read
    is given to each of them separately: NNCF's SmoothQuant rescales weights in place, and a tied embedding would be
    rescaled with them.
    """
    values = infer(program.graph, dict(program.state), [(tuple(t.shape), t.dtype) for t in inputs])
    graph = fx.Graph()
    state: dict[str, Tensor] = {}
    mapping: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        value = values.get(node)
        if node.op == "call_function" and isinstance(value, (bool, int, float)):
            mapping[node] = value
        elif node.op == "call_function":
            mapping[node] = _copy(graph, node, mapping, program, state)
        elif node.op != "get_attr":
            mapping[node] = graph.node_copy(node, lambda n: mapping[n])
        if isinstance(mapping.get(node), fx.Node):
            mapping[node].meta = {} if value is None or node.op == "output" else {"val": _stand_in(value)}
    graphs.eliminate_dead(graph)
    return graphs.graph_module(graph, state)


def _copy(
    graph: fx.Graph, node: fx.Node, mapping: dict[fx.Node, Any], program: Program, state: dict[str, Tensor]
) -> fx.Node:
    def convert(source: fx.Node) -> Any:
        if source.op != "get_attr":
            return mapping[source]
        name = f"{source.name}__{node.name}"
        state[name] = program.state[str(source.target)].detach().clone()
        read = graph.get_attr(name)
        read.meta["val"] = _stand_in(state[name])
        return read

    return graph.node_copy(node, convert)


def _stand_in(value: Any) -> Any:
    """A real tensor of this shape without memory of its own: NNCF runs small modules on it to learn shapes."""
    if isinstance(value, (tuple, list)):
        return tuple(_stand_in(v) for v in value)
    return torch.zeros((), dtype=value.dtype).expand(value.shape)
