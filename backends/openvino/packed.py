"""Weights of 4 bits in OpenVINO IR: constants that its kernels read packed, each with its scales."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from compactor.ir.weightonly import Packable

_BEFORE = ("Convert", "Subtract", "Multiply", "Reshape", "Transpose", "Unsqueeze")
"""What may stand between a stored weight and its product in a model read from ONNX."""


def pack_weights(model: Any, weights: Mapping[str, Packable]) -> None:
    """Let products read these weights, given by the names of their constants, as i4 instead of i8."""
    from openvino import opset13

    made: dict[str, Any] = {}
    for node in model.get_ordered_ops():
        name = _weight(node, weights) if node.get_type_name() == "MatMul" else None
        if name is None:
            continue
        if weights[name].columns % 2:
            continue  # rows would begin in the middle of a byte, which kernels misread
        if name not in made:
            made[name] = _decompressed(weights[name])
        product = opset13.matmul(node.input_value(0), made[name], False, True)
        product.set_friendly_name(node.get_friendly_name())
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(product.output(0))


def _weight(product: Any, weights: Mapping[str, Packable]) -> str | None:
    """The name of the stored weight that a product reads, if it is one of these."""
    node = product.input_value(1).get_node()
    while node.get_type_name() in _BEFORE:
        node = node.input_value(0).get_node()
    name = str(node.get_friendly_name()).removesuffix("_transposed")
    return name if node.get_type_name() == "Constant" and name in weights else None


def _decompressed(weight: Packable) -> Any:
    """The weight (rows, columns) in float, in the spelling that OpenVINO computes as it reads."""
    import openvino
    from openvino import opset13

    groups = weight.scales.shape[1]
    shape = [weight.rows, groups, weight.group] if groups > 1 else [weight.rows, weight.columns]
    packed = openvino.Tensor(_nibbles(weight.values.numpy()), openvino.Shape(shape), openvino.Type.i4)
    stored = openvino.op.Constant(packed, shared_memory=False)
    scales = weight.scales.numpy().reshape([*shape[:-1], 1])
    product = opset13.multiply(opset13.convert(stored, "f32"), opset13.constant(scales))
    if groups == 1:
        return product
    return opset13.reshape(product, opset13.constant(np.array([weight.rows, weight.columns])), False)


def _nibbles(values: Any) -> Any:
    """Integers of 4 bits, two to a byte, the first in the lower half; an odd one out is followed by 0."""
    flat = values.reshape(-1)
    flat = np.concatenate([flat, np.zeros(len(flat) % 2, flat.dtype)]).astype(np.uint8) & 15
    return flat[0::2] | (flat[1::2] << 4)
