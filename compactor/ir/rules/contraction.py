"""Contractions: linear, matrix products, einsum."""

import string

from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.graphs import arguments, op_name
from compactor.ir.masking import Masking
from compactor.ir.repeats import Repeats
from compactor.ir.rules import masked, rule, summing


@rule("linear")
def linear(node: fx.Node, analysis: Analysis) -> AxesTree:
    """(..., k) with weight (n, k) and bias (n,)."""
    x, weight = analysis.of(arguments(node)[0]), analysis.of(arguments(node)[1])
    lead = string.ascii_uppercase[: len(x.shape) - 1]
    result = analysis.contract([x, weight], [lead + "k", "nk"], lead + "n", node)
    if len(arguments(node)) > 2 and isinstance(arguments(node)[2], fx.Node):
        analysis.tie(result, -1, analysis.of(arguments(node)[2]), 0, node, "its bias")
    return result


@rule("matmul", "bmm", "mm", "mv", "dot")
def matmul(node: fx.Node, analysis: Analysis) -> AxesTree:
    """(..., m, k) with (..., k, n); leading dimensions broadcast."""
    a, b = analysis.of(arguments(node)[0]), analysis.of(arguments(node)[1])
    left, right, result = _letters(len(a.shape), len(b.shape))
    return analysis.contract([a, b], [left, right], result, node)


@rule("addmm", "baddbmm")
def addmm(node: fx.Node, analysis: Analysis) -> AxesTree:
    """A matrix product plus a broadcast term."""
    a, b = analysis.of(arguments(node)[1]), analysis.of(arguments(node)[2])
    left, right, result = _letters(len(a.shape), len(b.shape))
    product = analysis.contract([a, b], [left, right], result, node)
    return analysis.merge([product, analysis.of(arguments(node)[0])], analysis.shape(node), node)


@rule("einsum")
def einsum(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Any Einstein sum without repeated letters in one operand."""
    equation = str(arguments(node)[0]).replace(" ", "")
    operands = [analysis.of(n) for n in arguments(node)[1]]
    inputs, _, result = equation.partition("->")
    letters = inputs.split(",")
    if "..." in equation or any(len(set(names)) < len(names) for names in letters) or "->" not in equation:
        for n in node.all_input_nodes:
            analysis.pin_all(analysis.axes[n], node, f"einsum {equation!r} uses an ellipsis or a diagonal")
        return analysis.merge([], analysis.shape(node), node)
    return analysis.contract(operands, letters, result, node)


def _letters(left: int, right: int) -> tuple[str, str, str]:
    lead = string.ascii_uppercase[: max(left, right, 2) - 2]
    a = "k" if left == 1 else lead[len(lead) - left + 2 :] + "mk"
    b = "k" if right == 1 else lead[len(lead) - right + 2 :] + "kn"
    return a, b, lead + ("m" if left > 1 else "") + ("n" if right > 1 else "")


@masked("matmul", "bmm", "mm", "einsum")
def mask_contraction(old: fx.Node, new: fx.Node, masking: Masking) -> None:
    """Removed indices of a summed axis must contribute nothing, whatever an activation made of their zeros."""
    if op_name(old) == "einsum":
        inputs, _, result = str(arguments(old)[0]).replace(" ", "").partition("->")
        first, operands = inputs.split(",")[0], list(arguments(new)[1])
        summed = [d for d, letter in enumerate(first) if letter not in result]
        operands[0] = masking.zeroed(arguments(old)[1][0], operands[0], new, summed)
        new.update_arg(1, operands)
    else:
        new.update_arg(0, masking.zeroed(arguments(old)[0], arguments(new)[0], new, [-1]))


@summing("linear", "matmul", "bmm", "mm", "mv", "dot", "addmm", "baddbmm")
def summed_product(node: fx.Node, repeats: Repeats) -> None:
    """The last dimension of one operand with the last but one of the other, that of a linear weight with its last."""
    a, b = arguments(node)[1:3] if op_name(node) in ("addmm", "baddbmm") else arguments(node)[:2]
    transposed = op_name(node) == "linear" or len(repeats.shape(b)) == 1
    repeats.contracted(node, [(a, -1), (b, -1 if transposed else -2)])


@summing("einsum")
def summed_einsum(node: fx.Node, repeats: Repeats) -> None:
    """Letters that the result does not have."""
    inputs, _, result = str(arguments(node)[0]).replace(" ", "").partition("->")
    operands = list(zip(arguments(node)[1], inputs.split(","), strict=True))
    for letter in sorted(set(inputs) - set(result) - {","}) if "..." not in inputs else ():
        repeats.contracted(node, [(n, names.index(letter)) for n, names in operands if letter in names])
