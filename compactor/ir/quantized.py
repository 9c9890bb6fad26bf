"""The quantize and dequantize operators that int8 Programs use; importing this registers them with torch."""

import torch
import torch.ao.quantization.fx._decomposed
from torch import fx

ops = torch.ops.quantized_decomposed
QUANTIZE = (ops.quantize_per_tensor.default, ops.quantize_per_channel.default)
DEQUANTIZE = (ops.dequantize_per_tensor.default, ops.dequantize_per_channel.default)


def is_quantize(node: object) -> bool:
    """Whether a node turns floats into int8 or uint8."""
    return isinstance(node, fx.Node) and node.target in QUANTIZE


def is_dequantize(node: object) -> bool:
    """Whether a node turns int8 or uint8 back into floats."""
    return isinstance(node, fx.Node) and node.target in DEQUANTIZE
