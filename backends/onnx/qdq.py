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
        for made in (product, result):
            made.metadata_props.update(node.metadata_props)
        _take_over(graph, node, result)


def quantize_before_clamp(graph: Any) -> None:
    """``Quantize(Relu(x))`` becomes ``Max(Quantize(x), 0)`` in integers, and ``Clip`` likewise.

    ONNX Runtime's integer convolution must end in Quantize. Equal, for the zero point is zero and rounding monotonic.
    For uint8, whose least value is the zero point, ONNX Runtime does this itself.
    """
    import onnx_ir as ir

    for node in list(graph):
        clamp = node.inputs[0].producer() if node.op_type == "QuantizeLinear" else None
        if clamp is None or clamp.op_type not in ("Relu", "Clip") or len(list(clamp.outputs[0].uses())) > 1:
            continue
        source, limits = clamp.inputs[0].producer(), _limits(graph, clamp, node)
        if source is None or source.op_type != "Conv" or limits is None:
            continue
        node.replace_input_with(0, clamp.inputs[0])
        clip = ir.node("Clip", [node.outputs[0], *limits])
        clip.metadata_props.update(clamp.metadata_props)
        node.outputs[0].replace_all_uses_with(clip.outputs[0])
        clip.replace_input_with(0, node.outputs[0])
        graph.insert_after(node, clip)
        graph.remove(clamp, safe=True)


def one_sign(graph: Any) -> None:
    """Where activations are uint8 here and int8 there, all become uint8, by zero points 128 higher: the same numbers.

    ONNX Runtime has no integer convolution from one to the other. Values behind an integer ``Clip`` stay.
    """
    nodes = [n for n in graph if n.op_type == "QuantizeLinear" and _constant(n.inputs[2]) is not None]
    signed = [n for n in nodes if _constant(n.inputs[2]).dtype == np.int8]
    if len(signed) == len(nodes):
        return
    for node in signed:
        readers = [user for user, _ in node.outputs[0].uses()]
        if all(user.op_type == "DequantizeLinear" for user in readers):
            zero = (_constant(node.inputs[2]).astype(np.int16) + 128).astype(np.uint8)
            shifted = initializer(graph, f"zero_{zero}", zero)
            for each in (node, *readers):
                each.resize_inputs(3)
                each.replace_input_with(2, shifted)
            node.outputs[0].type = None


def _limits(graph: Any, clamp: Any, quantize: Any) -> list[Any] | None:
    """The integers that a clamp's limits are quantized to, None where that is not known or not what is meant."""
    scale, zero = (_constant(value) for value in quantize.inputs[1:3])
    if scale is None or scale.size != 1 or zero is None or zero.dtype != np.int8 or np.any(zero):
        return None
    if clamp.op_type == "Relu":
        return [quantize.inputs[2]]
    found = [_constant(value) for value in clamp.inputs[1:3]]
    if len(found) < 2 or any(value is None for value in found):
        return None
    steps = [np.clip(np.rint(value / scale), -128, 127).astype(np.int8).reshape(()) for value in found]
    return [initializer(graph, f"limit_{step}", step) for step in steps]


def _constant(value: Any) -> Any:
    """The numbers of a stored value; None for any other."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def initializer(graph: Any, name: str, array: Any) -> Any:
    """The initializer of this name, made of the array where there is none."""
    import onnx_ir as ir

    if name not in graph.initializers:
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
    return graph.initializers[name]


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

    weight = np.ascontiguousarray(node.inputs[0].const_value.numpy().transpose(order))
    stored = initializer(graph, f"{node.inputs[0].name}_transposed", weight)
    axis = order.index(axis_of(node) % len(order))
    moved = ir.node("DequantizeLinear", [stored, *node.inputs[1:]], attributes={"axis": axis})
    graph.insert_before(before, moved)
    return moved.outputs[0]


def _take_over(graph: Any, old: Any, new: Any) -> None:
    value, fresh = old.outputs[0], new.outputs[0]
    fresh.type, fresh.shape = value.type, value.shape
    value.replace_all_uses_with(fresh, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def _plain(node: Any) -> bool:
    return attribute(node, "alpha", 1.0) == 1.0 == attribute(node, "beta", 1.0) and not attribute(node, "transA", 0)
