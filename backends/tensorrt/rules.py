"""What TensorRT asks of quantizers, checked on the ONNX graph before a device refuses it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from compactor.backends.onnx.qdq import attribute, axis_of
from compactor.errors import UnsupportedError

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def check_quantizers(graph: Any) -> None:
    """Raise `UnsupportedError` naming the first quantizer that TensorRT refuses.

    It takes symmetric int8 with zero point 0, one scale per activation tensor, one per output channel of a weight, and
    no quantized bias.
    """
    for node in graph:
        for reason in _reasons(node) if node.op_type in _QUANTIZERS else ():
            raise UnsupportedError(
                f"quantizer {node.name} on {node.inputs[0].name!r} {reason}",
                "quantize for this target with symmetric int8, per output channel for weights (quantize.ptq does)",
            )


def _reasons(node: Any) -> Iterator[str]:
    scale, zero = node.inputs[1].const_value, node.inputs[2] if len(node.inputs) > 2 else None
    if scale is None:
        yield "has a scale that is not a constant"
        return
    if not np.all(scale.numpy() > 0):
        yield f"has a scale that is not positive in {scale.dtype.name}: {float(scale.numpy().min()):.3g}"
    if zero is not None and (zero.const_value is None or np.any(zero.const_value.numpy())):
        yield "has a zero point that is not 0"
    elif zero is not None and zero.const_value.dtype.name != "INT8":
        yield f"stores {zero.const_value.dtype.name}, not INT8"
    if node.op_type == "QuantizeLinear" and scale.size != 1:
        yield f"has {scale.size} scales on an activation"
    if node.op_type == "DequantizeLinear":
        for user, index in node.outputs[0].uses():
            yield from _use_reasons(node, scale, user, index)


def _use_reasons(node: Any, scale: Any, user: Any, index: int) -> Iterator[str]:
    if index == 2 and user.op_type in ("Conv", "Gemm", "ConvTranspose"):
        yield f"is the bias of {user.name}"
    elif index == 1 and scale.size > 1 and axis_of(node) != _channel_axis(user):
        yield f"has its scales on axis {axis_of(node)}, the output channels of {user.name} are on {_channel_axis(user)}"


def _channel_axis(user: Any) -> int:
    if user.op_type == "Gemm":
        return 0 if attribute(user, "transB", 0) else 1
    return 0 if user.op_type == "Conv" else 1
