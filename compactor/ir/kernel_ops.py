"""What each ATen op is to a runtime: the kernel kind it anchors, or what it fuses into; and its exact MACs."""

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import fx

from compactor.errors import InternalError
from compactor.ir.graphs import argument, groups_of
from compactor.ir.kernels import EPILOGUES, UNKNOWN

Shape = tuple[int, ...]
Shapes = Mapping[fx.Node, Any]
"""Shape of each node's tensor, a tuple of shapes for several; nodes that are no tensors may be left out."""

FREE, POINTWISE, REDUCTION, PERMUTE, WINDOW = "free", "pointwise", "reduction", "permute", "window"
_OPS = {
    POINTWISE: """hardswish prelu log_sigmoid where masked_fill __and__ __or__ __xor__ rsub add sub mul div batch_norm
        _native_batch_norm_legit_no_training""",
    FREE: """view reshape _unsafe_view view_as reshape_as unsqueeze squeeze flatten unflatten expand expand_as
        broadcast_to detach alias contiguous clone lift_fresh_copy to _to_copy type_as dropout feature_dropout
        alpha_dropout split split_with_sizes unsafe_split unsafe_chunk chunk unbind tensor_split getitem
        quantize_per_tensor dequantize_per_tensor quantize_per_channel dequantize_per_channel
        fake_quantize_per_tensor_affine fake_quantize_per_channel_affine convert_element_type""",
    PERMUTE: "permute transpose t numpy_T adjoint mT movedim swapaxes",
    WINDOW: "slice select narrow",
    REDUCTION: "mean sum amax amin var std prod max min norm linalg_vector_norm",
    "norm": """layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm _fused_rms_norm softmax
        _softmax log_softmax _log_softmax var_mean""",
    "pool": """max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d argmax argmin cumsum topk sort
        any all logsumexp""",
    "matmul": "matmul mm bmm addmm baddbmm einsum mv dot addmv addbmm",
    "linear": "linear",
    "embedding": "embedding embedding_bag",
    "attention": "scaled_dot_product_attention",
    "move": """cat concat stack hstack vstack repeat repeat_interleave tile roll flip rot90 index index_select index_put
        gather take take_along_dim scatter scatter_add scatter_reduce slice_scatter select_scatter diagonal_scatter
        index_copy index_add index_fill masked_select masked_scatter copy pad constant_pad_nd reflection_pad1d
        reflection_pad2d replication_pad1d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle
        native_channel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d
        upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact2d im2col col2im as_strided
        unfold diagonal diag_embed tril triu one_hot glu full full_like zeros zeros_like ones ones_like new_zeros
        new_ones new_full new_empty empty_like arange linspace eye scalar_tensor meshgrid nonzero""",
}
_EPILOGUES = {
    "relu": "relu relu6 hardtanh clamp clamp_min clamp_max leaky_relu prelu abs neg threshold where masked_fill",
    "sigmoid": """sigmoid silu tanh exp log log1p expm1 softplus mish elu celu selu hardswish hardsigmoid log_sigmoid
        sqrt rsqrt pow sin cos reciprocal""",
    "gelu": "gelu erf erfc",
}
_EPILOGUE = {op: EPILOGUES.index(kind) for kind, ops in _EPILOGUES.items() for op in ops.split()}
_CLASSES = {op: kind for kind, ops in _OPS.items() for op in ops.split()}


def op_name(node: fx.Node) -> str:
    """The op without namespace and overload: ``conv2d`` of ``aten.conv2d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema.name).split("::")[-1]
    return str(getattr(node.target, "__name__", node.target))


def op_class(node: fx.Node, shapes: Shapes) -> str:
    """The kernel kind that a call anchors, or one of the classes above; ``unknown`` for an op that is in none."""
    name = op_name(node)
    name = name if name.endswith("__") else name.removesuffix("_")
    if "conv" in name and len(node.args) > 1:
        weight = shapes.get(argument(node, 1, "weight"))
        groups = _conv_groups(node, shapes)
        return "depthwise" if weight and groups > 1 and (weight[0] == groups or weight[1] == 1) else "conv"
    if name in _CLASSES:
        return _CLASSES[name]
    pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
    return POINTWISE if pointwise else UNKNOWN


def epilogue(node: fx.Node) -> int:
    """The number in `EPILOGUES` of a pointwise op."""
    return _EPILOGUE.get(op_name(node).removesuffix("_"), EPILOGUES.index("add"))


def is_zero_pad(node: fx.Node) -> bool:
    """Whether a call pads with zeros, as convolutions do themselves."""
    name = op_name(node)
    mode = argument(node, 2, "mode", "constant") if name == "pad" else "constant"
    value = argument(node, 3 if name == "pad" else 2, "value", 0)
    return name in ("pad", "constant_pad_nd") and mode == "constant" and not value


def keeps_rows(node: fx.Node, shapes: Shapes) -> bool:
    """Whether a reduction is over the last dimension only and keeps it, as norms spelled out do."""
    first = node.all_input_nodes[0] if node.all_input_nodes else None
    before, after = shapes.get(first) if first is not None else None, shapes.get(node)
    return bool(before and after and is_shape(after) and (*after,) == (*before[:-1], 1))


def is_shape(value: Any) -> bool:
    """Whether a value is one shape, not a tuple of shapes."""
    return value is not None and all(isinstance(n, int) for n in value)


def elements(value: Any) -> int:
    """Number of elements of a shape, a tuple of shapes or None."""
    if value is None:
        return 0
    return prod(value) if is_shape(value) else sum(map(elements, value))


def _conv_groups(node: fx.Node, shapes: Shapes) -> int:
    source, weight = shapes[argument(node, 0, "input")], shapes[argument(node, 1, "weight")]
    if not _is_transposed(node) and len(source) == len(weight):
        # From the shapes, not the literal: they may be those of a subnet.
        groups: int = source[1] // weight[1]
        return groups
    return groups_of(node)


def _is_transposed(node: fx.Node) -> bool:
    return "transpose" in op_name(node) or (op_name(node) == "convolution" and bool(argument(node, 6, "transposed")))


def _conv(node: fx.Node, shapes: Shapes) -> tuple[int, int, int, int]:
    """Products of a convolution. The weight is (out, in / groups, taps); transposed: (in, out / groups, taps)."""
    weight, groups = shapes[argument(node, 1, "weight")], _conv_groups(node, shapes)
    if _is_transposed(node):
        source = shapes[argument(node, 0, "input")]
        return groups, prod(source) // weight[0], weight[1] * prod(weight[2:]), weight[0] // groups
    return groups, prod(shapes[node]) // weight[0], weight[0] // groups, prod(weight[1:])


def _linear(node: fx.Node, shapes: Shapes) -> tuple[int, int, int, int]:
    weight = shapes[argument(node, 1, "weight")]
    out = weight[0] if len(weight) > 1 else 1
    return 1, prod(shapes[node]) // out, out, weight[-1]


def _matmul(node: fx.Node, shapes: Shapes) -> tuple[int, int, int, int]:
    if op_name(node) == "einsum":
        return _einsum(node, shapes)
    first = 1 if op_name(node) in ("addmm", "baddbmm", "addmv", "addbmm") else 0
    a, b = shapes[node.args[first]], shapes[node.args[first + 1]]  # type: ignore[index]
    columns, depth = (b[-1] if len(b) > 1 else 1), a[-1]
    if op_name(node) == "addbmm":
        return a[0], a[1], columns, depth
    rows = a[-2] if len(a) > 1 else 1
    return max(1, prod(shapes[node]) // (rows * columns)), rows, columns, depth


def _einsum(node: fx.Node, shapes: Shapes) -> tuple[int, int, int, int]:
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not right or len(terms) != 2 or not isinstance(operands, (list, tuple)):
        return 1, 1, 1, elements(shapes[node])
    size = {c: n for term, x in zip(terms, operands, strict=True) for c, n in zip(term, shapes[x], strict=True)}
    a, b, out = map(set, (*terms, right))
    groups, rows, columns, depth = (
        prod(size[c] for c in letters) for letters in (a & b & out, (a - b) & out, (b - a) & out, (a | b) - out)
    )
    return groups, rows, columns, depth


def _attention(node: fx.Node, shapes: Shapes) -> tuple[int, int, int, int]:
    query, key = shapes[node.args[0]], shapes[node.args[1]]  # type: ignore[index]
    return prod(query[:-2]), query[-2], key[-2], query[-1]


_PRODUCTS = {"conv": _conv, "depthwise": _conv, "linear": _linear, "matmul": _matmul, "attention": _attention}


def products(node: fx.Node, shapes: Shapes) -> tuple[int, int, int, int, int]:
    """MACs, and (groups, rows, columns, depth) as in `Kernel`, of one anchoring node; zeros for ops without MACs."""
    kind = op_class(node, shapes)
    if kind not in _PRODUCTS:
        return 0, 0, 0, 0, 0
    try:
        groups, rows, columns, depth = _PRODUCTS[kind](node, shapes)
    except (KeyError, IndexError, TypeError) as error:
        raise InternalError(f"node {node.name} ({node.target}) lacks the shapes to count its MACs: {error}") from error
    macs = groups * rows * columns * depth
    if kind == "attention":
        value = shapes[node.args[2]]  # type: ignore[index]
        macs = groups * rows * columns * (depth + value[-1])
    return macs, groups, rows, columns, depth
