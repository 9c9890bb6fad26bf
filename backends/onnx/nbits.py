"""Weights of 4 bits in ONNX Runtime's own operator, MatMulNBits: packed as its kernels read them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compactor.backends.onnx.qdq import attribute, initializer
from compactor.ir.weightonly import Packable

_DOMAIN = "com.microsoft"
_BEFORE = ("DequantizeLinear", "Reshape", "Transpose")
_BLOCK = 32
"""Of weights whose columns all share a scale."""
_EXACT = 1
"""The accuracy level of float32 arithmetic."""


def pack_weights(graph: Any, weights: Mapping[str, Packable]) -> None:
    """``MatMulNBits`` in the place of products that read these weights, given by the names of their initializers."""
    import onnx_ir as ir

    for node in list(graph):
        name = _weight(node, weights) if node.op_type in ("MatMul", "Gemm") else None
        if name is None:
            continue
        stored = _stored(graph, name, weights[name])
        attributes = {"K": weights[name].columns, "N": weights[name].rows, "bits": 4, "accuracy_level": _EXACT}
        attributes["block_size"] = _block(weights[name])
        product = ir.node("MatMulNBits", [node.inputs[0], *stored], attributes=attributes, domain=_DOMAIN)
        made = [product]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            made.append(ir.node("Add", [product.outputs[0], node.inputs[2]]))
        for each in made:
            graph.insert_before(node, each)
            each.metadata_props.update(node.metadata_props)
        last = made[-1].outputs[0]
        last.type, last.shape = node.outputs[0].type, node.outputs[0].shape
        node.outputs[0].replace_all_uses_with(last, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        graph.opset_imports[_DOMAIN] = 1


def _weight(node: Any, weights: Mapping[str, Packable]) -> str | None:
    """The name of the stored weight that a product reads, if it is one of these."""
    value = node.inputs[1]
    while value.producer() is not None and value.producer().op_type in _BEFORE:
        value = value.producer().inputs[0]
    name = str(value.name).removesuffix("_transposed")
    plain = attribute(node, "alpha", 1.0) == 1.0 == attribute(node, "beta", 1.0)
    return name if value.const_value is not None and name in weights and plain else None


def _block(weight: Packable) -> int:
    return weight.group if weight.scales.shape[1] > 1 else _BLOCK


def _stored(graph: Any, name: str, weight: Packable) -> list[Any]:
    """The packed integers and their scales, (rows, blocks), as initializers."""
    packed = _blocks(weight)
    scales = np.broadcast_to(weight.scales.numpy(), packed.shape[:2])
    named = {f"{name}_packed": packed, f"{name}_scales": np.ascontiguousarray(scales).reshape(-1)}
    return [initializer(graph, key, value) for key, value in named.items()]


def _blocks(weight: Packable) -> NDArray[np.uint8]:
    """(rows, blocks, half a block): two columns to a byte, the first in the lower half, each with 8 added."""
    block = _block(weight)
    blocks = -(-weight.columns // block)
    values = np.full((weight.rows, blocks * block), 8, np.uint8)
    values[:, : weight.columns] = weight.values.numpy().astype(np.int16) + 8
    packed: NDArray[np.uint8] = values[:, 0::2] | (values[:, 1::2] << 4).astype(np.uint8)
    return packed.reshape(weight.rows, blocks, block // 2)
