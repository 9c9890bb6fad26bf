"""What TensorRT asks of quantizers, checked on the ONNX graph before a device refuses it.

Sources: NVIDIA TensorRT, Inference Library, "Working with Quantized Types" (symmetric int8, scales that are constants,
one per activation or one per output channel of a weight), and the checks of its ONNX parser (zero points, signs and
number of scales).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from compactor.backends.onnx.qdq import attribute, axis_of
from compactor.errors import UnsupportedError

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")
_PRODUCTS = ("MatMul", *_WEIGHTED)
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that hand on integers as they are."""


def check_quantizers(graph: Any) -> None:
    """Raise `UnsupportedError` naming the first quantizer that TensorRT refuses."""
    for node, reason in violations(graph):
        raise UnsupportedError(
            f"quantizer {node.name} on {node.inputs[0].name!r} {reason}",
            "quantize for this target with symmetric int8, per output channel for weights (quantize.ptq does)",
        )


def violations(graph: Any) -> Iterator[tuple[Any, str]]:
    """The quantizers of an ``onnx_ir.Graph`` that TensorRT refuses, each with a reason, in the order of the graph.

    It takes symmetric int8 with zero point 0 and constant scales, one per activation tensor, one per tensor or output
    channel of a weight; no quantized bias; integers that go from a quantizer to a dequantizer and nowhere else.
    """
    for node in graph:
        if node.op_type in _QUANTIZERS:
            yield from ((node, reason) for reason in _reasons(node))


def _reasons(node: Any) -> Iterator[str]:
    scale = node.inputs[1].const_value
    if scale is None:
        yield "has a scale that is not a constant"
        return
    numbers = scale.numpy()
    if not np.all(np.isfinite(numbers) & (numbers > 0)):
        yield f"has a scale that is not positive in {scale.dtype.name}: {float(numbers.min()):.3g}"
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and (zero.const_value is None or np.any(zero.const_value.numpy())):
        yield "has a zero point that is not 0"
    elif (stored := _stored(node, zero)) not in ("INT8", ""):
        yield f"stores {stored}, not INT8"
    yield from _quantize_reasons(node, scale) if node.op_type == "QuantizeLinear" else _dequantize_reasons(node, scale)


def _stored(node: Any, zero: Any) -> str:
    """The type of the integers; "" where only the quantizer before tells."""
    if zero is not None:
        return str(zero.const_value.dtype.name)
    if node.op_type == "QuantizeLinear":
        return "UINT8"  # ONNX's default
    weight = node.inputs[0].const_value
    return "" if weight is None else str(weight.dtype.name)


def _quantize_reasons(node: Any, scale: Any) -> Iterator[str]:
    if scale.size != 1:
        yield f"has {scale.size} scales on an activation"
    yield from _integer_readers(node.outputs[0])


def _integer_readers(value: Any) -> Iterator[str]:
    if value.is_graph_output():
        yield "is an output of the model"
    for user, _ in value.uses():
        if user.op_type in _MOVES:
            yield from _integer_readers(user.outputs[0])
        elif user.op_type != "DequantizeLinear":
            yield f"is read as integers by {user.name} ({user.op_type})"


def _dequantize_reasons(node: Any, scale: Any) -> Iterator[str]:
    source = node.inputs[0]
    if source.const_value is None:
        if scale.size != 1:
            yield f"has {scale.size} scales on an activation"
        made = _maker(source)
        if made is None or made.op_type != "QuantizeLinear":
            yield f"turns back integers that {'the input' if made is None else made.name} made, not a quantizer"
        return
    shape = source.const_value.shape
    channels = shape[axis_of(node)] if scale.size > 1 and -len(shape) <= axis_of(node) < len(shape) else scale.size
    if scale.size != channels:
        yield f"has {scale.size} scales for {channels} channels"
    for user, index in node.outputs[0].uses():
        yield from _reader_reasons(node, scale, user, index)


def _maker(value: Any) -> Any:
    """The node that made these integers."""
    node = value.producer()
    return _maker(node.inputs[0]) if node is not None and node.op_type in _MOVES else node


def _reader_reasons(node: Any, scale: Any, user: Any, index: int) -> Iterator[str]:
    """What is wrong with this reader of a stored tensor, as its ``index``-th input."""
    if (index == 2 and user.op_type in _WEIGHTED) or _adds_bias(node, user):
        yield f"is the bias of {user.name}"
    elif scale.size > 1:
        rank = len(node.inputs[0].const_value.shape)
        axis = _channel_axis(user, index, rank)
        if axis is None:
            yield f"has {scale.size} scales, and {user.name} ({user.op_type}) takes one"
        elif axis_of(node) % rank != axis:
            yield f"has its scales on axis {axis_of(node)}, the output channels of {user.name} are on {axis}"


def _adds_bias(node: Any, user: Any) -> bool:
    """Whether a stored vector is added to a product."""
    vector = sum(size > 1 for size in node.inputs[0].const_value.shape) <= 1
    makers = [value.producer() for value in user.inputs if value is not None] if user.op_type == "Add" else []
    return vector and any(maker is not None and maker.op_type in _PRODUCTS for maker in makers)


def _channel_axis(user: Any, index: int, rank: int) -> int | None:
    """The axis of the output channels of a weight that is the ``index``-th input; None where it is no weight."""
    if user.op_type == "MatMul":
        return rank - 1 if index == 1 else rank - 2
    if index != 1 or user.op_type not in _WEIGHTED:
        return None
    if user.op_type == "Gemm":
        return 0 if attribute(user, "transB", 0) else 1
    return 0 if user.op_type == "Conv" else 1
