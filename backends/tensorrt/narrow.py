"""An int8 Program whose other arithmetic is float16: TensorRT takes every type from the ONNX file."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from compactor.backends.onnx.qdq import axis_of
from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program

_LARGEST = torch.finfo(torch.float16).max


def narrow(program: Program) -> Program:
    """The Program with float16 between its quantizers; inputs and outputs keep their types.

    Literals beyond the range of float16 (masks' minus infinity) are brought into it, so that zero times one is not NaN.
    """
    graph, _ = graphs.copy_graph(program.graph)
    scales = {n.args[1] for n in graph.nodes if _quantizer(n) and isinstance(n.args[1], fx.Node)}
    kept = {str(n.target) for n in scales}
    state = {
        name: tensor.half() if tensor.dtype == torch.float32 and name not in kept else tensor
        for name, tensor in program.state.items()
    }
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if _quantizer(node):
            if "dequantize" in str(node.target):
                node.kwargs = {"out_dtype": torch.float16}
            continue
        node.args, node.kwargs = _narrow(node.args), _narrow(node.kwargs)
    _cast_ends(graph, program)
    return replace(program, graph=graph, state=state)


def halve_scales(graph: Any) -> None:
    """Scales of an ONNX graph as float16, so that quantizers take and give float16 without casts.

    Stored weights are rounded again to the scales as they then are: those of nearly dead channels lose most of their
    digits below 6e-5, the least normal float16, and all below 6e-8.
    """
    for node in list(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = node.inputs[1]
        exact = scale.const_value.numpy().astype(np.float64)
        half = np.maximum(exact.astype(np.float16), np.finfo(np.float16).smallest_subnormal)
        node.replace_input_with(1, _stored(graph, f"{scale.name}_half", half))
        weight = node.inputs[0]
        if weight.const_value is not None:
            stored = _rounded_again(weight.const_value.numpy(), exact / half.astype(np.float64), axis_of(node))
            node.replace_input_with(0, _stored(graph, f"{weight.name}_half", stored))
        for user, _ in list(node.outputs[0].uses()) if node.op_type == "DequantizeLinear" else ():
            if user.op_type == "Cast":
                user.outputs[0].replace_all_uses_with(node.outputs[0])
                graph.remove(user, safe=True)


def _rounded_again(weight: Any, ratio: Any, axis: int) -> Any:
    if ratio.ndim:
        ratio = ratio.reshape([-1 if i == axis % weight.ndim else 1 for i in range(weight.ndim)])
    return np.clip(np.rint(weight * ratio), -127, 127).astype(weight.dtype)


def _stored(graph: Any, name: str, value: Any) -> Any:
    import onnx_ir as ir

    if name not in graph.initializers:
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(value, name=name)))
    return graph.initializers[name]


def _quantizer(node: fx.Node) -> bool:
    return "quantized_decomposed" in str(node.target)


def _narrow(value: Any) -> Any:
    def change(leaf: Any) -> Any:
        if isinstance(leaf, float):
            return min(max(leaf, -_LARGEST), _LARGEST)
        return torch.float16 if leaf is torch.float32 else leaf

    return fx.node.map_aggregate(value, change)


def _cast_ends(graph: fx.Graph, program: Program) -> None:
    for spec, node in zip(program.inputs, graphs.placeholders(graph), strict=True):
        if spec.dtype != torch.float32 or not node.users:
            continue
        users = [user for user in node.users if user.target is not aten.sym_size.int]
        with graph.inserting_after(node):
            entry = graph.call_function(aten.to.dtype, (node, torch.float16))
        for user in users:
            user.replace_input_with(node, entry)
    output = graphs.output_node(graph)
    with graph.inserting_before(output):
        results: Any = output.args[0]
        output.args = (tuple(graph.call_function(aten.to.dtype, (n, torch.float32)) for n in results),)
