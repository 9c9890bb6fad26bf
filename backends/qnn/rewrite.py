"""What Hexagon's compiler wants of quantizers, in the ONNX graph; each rewrite computes the same.

Qualcomm's provider runs an operator in integers where its inputs come out of dequantizers and its output goes into a
quantizer of the same type; what else is quantized must have one scale.
"""

from typing import Any

import numpy as np

from compactor.backends.onnx.qdq import axis_of

_PRODUCTS = ("Conv", "MatMul")
_OFFSET = 128
_MOVES = "Reshape", "Transpose", "MaxPool", "Flatten", "Squeeze", "Unsqueeze"


def for_hexagon(graph: Any) -> None:
    """Rewrite an ``onnx_ir.Graph`` in place."""
    unsign_activations(graph)
    for node in list(graph):
        if node.op_type == "DequantizeLinear" and node.inputs[0].const_value is not None:
            _settle(graph, node)


def unsign_activations(graph: Any) -> None:
    """int8 activations become uint8, zero points and all 128 higher: one type on both sides of every operator."""
    for node in list(graph):
        if node.op_type == "QuantizeLinear":
            zero = node.inputs[2].const_value
            if zero.dtype.name == "INT8":
                value = int(zero.numpy()) + _OFFSET
                node.replace_input_with(2, _stored(graph, f"zero_{value}", np.uint8(value)))
        elif node.op_type == "DequantizeLinear" and node.inputs[0].const_value is None:
            node.resize_inputs(3)
            node.replace_input_with(2, _source(node.inputs[0]).inputs[2])


def _settle(graph: Any, node: Any) -> None:
    """Give a stored weight one scale, unless those that read it run in integers."""
    scale = node.inputs[1].const_value.numpy()
    for user, index in list(node.outputs[0].uses()) if scale.size > 1 else ():
        if user.op_type in _PRODUCTS and index == 1:
            if not _in_integers(user):
                _scale_output(graph, node, user)
        else:
            user.replace_input_with(index, _stored(graph, f"{node.inputs[0].name}_float", _floats(node)))


def _in_integers(product: Any) -> bool:
    """Whether its output goes into one quantizer and no further; a clamp between must be at the least integer."""
    node = product
    while True:
        users = [user for user, _ in node.outputs[0].uses()]
        if len(users) != 1 or node.outputs[0].is_graph_output():
            return False
        node = users[0]
        if node.op_type == "QuantizeLinear":
            clamped = node.inputs[0].producer() is not product
            return _dequantized(product.inputs[0]) and not (clamped and node.inputs[2].const_value.numpy().any())
        if node.op_type not in ("Relu", "Clip"):
            return False


def _dequantized(value: Any) -> bool:
    """Whether a value comes out of a dequantizer."""
    node = _source(value)
    return node is not None and node.op_type == "DequantizeLinear"


def _source(value: Any) -> Any:
    """The node that made a value, before those that hand on values as they are."""
    node = value.producer()
    return _source(node.inputs[0]) if node is not None and node.op_type in _MOVES else node


def _scale_output(graph: Any, weight: Any, product: Any) -> None:
    """One scale for the weight, the largest, and the product's channels multiplied by what theirs is of it."""
    import onnx_ir as ir

    scale = weight.inputs[1].const_value.numpy()
    largest, name = scale.max(), weight.inputs[0].name
    one = ir.node("DequantizeLinear", [weight.inputs[0], _stored(graph, f"{name}_scale", largest)])
    rank = len(weight.inputs[0].const_value.shape)
    shape = (-1, *[1] * (rank - 2)) if product.op_type == "Conv" else (-1,)
    bias = product.inputs[2] if len(product.inputs) > 2 else None
    result, users = product.outputs[0], list(product.outputs[0].uses())
    made = [ir.node("Mul", [result, _stored(graph, f"{name}_shares", (scale / largest).reshape(shape))])]
    if bias is not None:
        moved = _stored(graph, f"{bias.name}_moved", bias.const_value.numpy().reshape(shape))
        made.append(ir.node("Add", [made[-1].outputs[0], moved]))
        product.resize_inputs(2)
    graph.insert_before(product, one)
    product.replace_input_with(1, one.outputs[0])
    graph.insert_after(product, made)
    last = made[-1].outputs[0]
    last.type, last.shape = result.type, result.shape
    for user, index in users:
        user.replace_input_with(index, last)
    for i, output in enumerate(graph.outputs):
        if output is result:
            graph.outputs[i] = last
    for fresh in (one, *made):
        fresh.metadata_props.update(product.metadata_props)


def _floats(node: Any) -> Any:
    """What a stored weight stands for, float32."""
    integers, scale = node.inputs[0].const_value.numpy(), node.inputs[1].const_value.numpy()
    shape = [-1 if i == axis_of(node) % integers.ndim else 1 for i in range(integers.ndim)]
    return (integers.astype(np.float32) * scale.reshape(shape)).astype(np.float32)


def _stored(graph: Any, name: str, value: Any) -> Any:
    import onnx_ir as ir

    if name not in graph.initializers:
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(np.asarray(value), name=name)))
    return graph.initializers[name]
