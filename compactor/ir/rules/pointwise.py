"""Pointwise ops: every axis of the result is the same axis of the operands."""

from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes
from compactor.ir.graphs import arguments, op_name
from compactor.ir.rules import rule


@rule(
    *[
        "add",
        "sub",
        "mul",
        "div",
        "rsub",
        "pow",
        "remainder",
        "fmod",
        "atan2",
        "maximum",
        "minimum",
        "true_divide",
        "floor_divide",
        "where",
        "masked_fill",
        "lerp",
        "addcmul",
        "addcdiv",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
        "logical_xor",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "__and__",
        "__or__",
        "__xor__",
        "__lshift__",
        "__rshift__",
        "clamp",
        "clamp_min",
        "clamp_max",
        "clip",
        "prelu",
        "relu",
        "relu6",
        "gelu",
        "silu",
        "sigmoid",
        "tanh",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "mish",
        "softplus",
        "softsign",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sqrt",
        "rsqrt",
        "square",
        "reciprocal",
        "neg",
        "abs",
        "sign",
        "floor",
        "ceil",
        "round",
        "trunc",
        "frac",
        "erf",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "logit",
        "log_sigmoid",
        "threshold",
        "hardshrink",
        "softshrink",
        "isnan",
        "isinf",
        "isfinite",
        "nan_to_num",
        "logical_not",
        "bitwise_not",
        "positive",
        "special_expm1",
        "to",
        "_to_copy",
        "type_as",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "lift_fresh_copy",
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "native_dropout",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "fill",
        "bernoulli",
        "quantized_decomposed.quantize_per_tensor",
        "quantized_decomposed.dequantize_per_tensor",
    ]
)
def pointwise(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Operands broadcast against each other; numbers do not count."""
    if op_name(node) == "prelu":
        return _prelu(node, analysis)
    operands = [analysis.of(n) for n in node.all_input_nodes if isinstance(analysis.axes[n], Axes)]
    return analysis.merge(operands, analysis.shape(node), node)


@rule("quantized_decomposed.quantize_per_channel", "quantized_decomposed.dequantize_per_channel")
def per_channel(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Scales and zero points follow the channel axis."""
    values, axis = analysis.of(arguments(node)[0]), int(arguments(node)[3])
    for parameter in arguments(node)[1:3]:
        analysis.tie(values, axis, analysis.of(parameter), 0, node, "quantization parameters of a fixed axis")
    return values


def _prelu(node: fx.Node, analysis: Analysis) -> Axes:
    values, slope = analysis.of(arguments(node)[0]), analysis.of(arguments(node)[1])
    if slope.clusters:
        values = analysis.alone(values, 1, node, "it has one slope per channel")
        analysis.tie(values, 1, slope, 0, node, "it has one slope per channel")
    return values
