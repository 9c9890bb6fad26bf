"""Rewrites around QuantizeLinear and DequantizeLinear that let integer kernels be picked; each computes the same."""

from typing import Any

import numpy as np


def transpose_weights(graph: Any) -> None:
    """``Transpose(DequantizeLinear(weight))`` becomes ``DequantizeLinear(transposed weight)``, as kernels expect it."""
    for node in list(graph):
        if node.op_type == "Transpose" and _stored(node.inputs[0]):
            moved = _transposed(graph, node, node.inputs[0].producer(), list(node.attributes["perm"].as_ints()))
            node.outputs[0].replace_all_uses_with(moved)
            graph.remove(node, safe=True)


def drop_zero_points(graph: Any) -> None:
    """``DequantizeLinear`` without its zero point where that is zero: the default, and fewer nodes in every runtime."""
    for node in list(graph):
        zero = node.inputs[2] if node.op_type == "DequantizeLinear" and len(node.inputs) > 2 else None
        if zero is not None and zero.const_value is not None and not np.any(zero.const_value.numpy()):
            node.resize_inputs(2)


def split_gemms(graph: Any) -> None:
    """Quantized ``Gemm`` becomes ``MatMul`` and ``Add``: its integer kernels do not want an integer bias."""
    import onnx_ir as ir

    for node in list(graph):
        if node.op_type != "Gemm" or not _stored(node.inputs[1]) or not _plain(node):
            continue
        weight = node.inputs[1]
        if attribute(node, "transB", 0):
            weight = _transposed(graph, node, weight.producer(), [1, 0])
        product = ir.node("MatMul", [node.inputs[0], weight])
        graph.insert_before(node, product)
        result = product
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            result = ir.node("Add", [product.outputs[0], node.inputs[2]])
            graph.insert_before(node, result)
        _take_over(graph, node, result)


def quantize_before_relu(graph: Any) -> None:
    """``Quantize(Relu(x))`` becomes ``Max(Quantize(x), 0)`` in integers.

    ONNX Runtime's integer convolution must end in Quantize. Equal, for the zero point is zero and rounding monotonic.
    For uint8, whose least value is the zero point, ONNX Runtime does this itself.
    """
    import onnx_ir as ir

    for node in list(graph):
        relu = node.inputs[0].producer() if node.op_type == "QuantizeLinear" else None
        if relu is None or relu.op_type != "Relu" or len(list(relu.outputs[0].uses())) > 1:
            continue
        source, zero = relu.inputs[0].producer(), node.inputs[2]
        if source is None or source.op_type != "Conv" or not _signed_zero(zero):
            continue
        node.replace_input_with(0, relu.inputs[0])
        clip = ir.node("Clip", [node.outputs[0], zero])
        node.outputs[0].replace_all_uses_with(clip.outputs[0])
        clip.replace_input_with(0, node.outputs[0])
        graph.insert_after(node, clip)
        graph.remove(relu, safe=True)


def _signed_zero(value: Any) -> bool:
    constant = value.const_value
    return constant is not None and constant.dtype.name == "INT8" and not np.any(constant.numpy())


def axis_of(node: Any) -> int:
    """The axis of a quantizer's scales."""
    return int(attribute(node, "axis", 1))


def attribute(node: Any, name: str, default: float) -> Any:
    """Value of a node's attribute."""
    return node.attributes[name].value if name in node.attributes else default


def _stored(value: Any) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear" and node.inputs[0].const_value is not None


def _transposed(graph: Any, before: Any, node: Any, order: list[int]) -> Any:
    import onnx_ir as ir

    name = f"{node.inputs[0].name}_transposed"
    if name not in graph.initializers:
        weight = np.ascontiguousarray(node.inputs[0].const_value.numpy().transpose(order))
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(weight, name=name)))
    axis = order.index(axis_of(node) % len(order))
    moved = ir.node("DequantizeLinear", [graph.initializers[name], *node.inputs[1:]], attributes={"axis": axis})
    graph.insert_before(before, moved)
    return moved.outputs[0]


def _take_over(graph: Any, old: Any, new: Any) -> None:
    value, fresh = old.outputs[0], new.outputs[0]
    fresh.type, fresh.shape = value.type, value.shape
    value.replace_all_uses_with(fresh, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def _plain(node: Any) -> bool:
    return attribute(node, "alpha", 1.0) == 1.0 == attribute(node, "beta", 1.0) and not attribute(node, "transA", 0)
