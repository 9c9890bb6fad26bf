"""Scaled dot-product attention: a head is the unit."""

import numpy as np
from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes
from compactor.ir.graphs import argument, arguments
from compactor.ir.rules import rule
from compactor.ir.rules.view import take


@rule("scaled_dot_product_attention")
def attention(node: fx.Node, analysis: Analysis) -> AxesTree:
    """query (..., h, t, d), key (..., g, s, d), value (..., g, s, v); with grouped queries g divides h."""
    query, key, value = (_within_heads(analysis.of(n), node, analysis) for n in arguments(node)[:3])
    heads, groups = _heads(query), _heads(key)
    if 1 < groups != heads and len(query.shape) > 3:  # a single one broadcasts
        key, value = (_repeat(axes, heads // groups) for axes in (key, value))
    batch = "".join(chr(ord("A") + i) for i in range(len(query.shape) - 2))
    operands, letters = [query, key, value], [batch + "td", batch + "sd", batch + "sv"]
    mask = argument(node, 3, "attn_mask")
    if isinstance(mask, fx.Node):
        axes = _within_heads(analysis.of(mask), node, analysis)
        operands.append(axes)
        letters.append((batch + "ts")[len(batch) + 2 - len(axes.shape) :])
    return analysis.contract(operands, letters, batch + "tv", node)


def _within_heads(axes: Axes, node: fx.Node, analysis: Analysis) -> Axes:
    for dim in (-1, -2):
        axes = analysis.fix(axes, dim, node, "attention works within each head and over all positions")
    return axes


def _heads(axes: Axes) -> int:
    return axes.shape[-3] if len(axes.shape) > 2 else 1


def _repeat(axes: Axes, times: int) -> Axes:
    shape = (*axes.shape[:-3], axes.shape[-3] * times, *axes.shape[-2:])
    return take(axes, len(shape) - 3, lambda n: np.repeat(np.arange(n), times), shape)
