"""Lookups by index."""

from typing import Any

from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes
from compactor.ir.graphs import argument, arguments, op_name
from compactor.ir.rules import rule


@rule("embedding")
def embedding(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Rows are looked up, so all must stay; columns follow the hidden axis."""
    table, indices = analysis.of(arguments(node)[0]), analysis.of(arguments(node)[1])
    table = analysis.fix(table, 0, node, "its rows are looked up by index")
    analysis.pin_all(indices, node, "it is used as an index")
    shape = analysis.shape(node)
    return table.remap({1: len(shape) - 1}, shape)


@rule("index", "_unsafe_index")
def index(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Indexed dimensions must stay whole; the others pass when the indexed ones stand together."""
    x, shape = analysis.of(arguments(node)[0]), analysis.shape(node)
    indices: list[Any] = list(arguments(node)[1])
    used = [d for d, i in enumerate(indices) if i is not None]
    for n in indices:
        if n is not None:
            analysis.pin_all(analysis.axes[n], node, "it is used as an index")
    for d in used:
        x = analysis.fix(x, d, node, "it is indexed by a tensor")
    together = used == list(range(used[0], used[-1] + 1))
    if not together:
        analysis.pin_all(x, node, "an index separates it from its place")
        return Axes(shape)
    added = len(shape) - (len(x.shape) - len(used))
    mapping = {d: d if d < used[0] else d - len(used) + added for d in range(len(x.shape)) if d not in used}
    return x.remap(mapping, shape)


@rule("index_select", "gather", "take_along_dim", "scatter", "scatter_add", "index_put", "index_add")
def looked_up(node: fx.Node, analysis: Analysis) -> AxesTree:
    """``index_select`` fixes one dimension; the others need everything."""
    x = analysis.of(arguments(node)[0])
    if op_name(node) == "index_select":
        x = analysis.fix(x, int(argument(node, 1, "dim")), node, "it is indexed by a tensor")
        return Axes(analysis.shape(node), x.clusters)
    for n in node.all_input_nodes:
        analysis.pin_all(analysis.axes[n], node, f"{op_name(node)} addresses it by index")
    return Axes(analysis.shape(node))


@rule("triu", "tril")
def triangle(node: fx.Node, analysis: Analysis) -> AxesTree:
    """The last two dimensions are positions."""
    x = analysis.of(arguments(node)[0])
    for d in (-2, -1):
        x = analysis.fix(x, d, node, "a triangle depends on positions")
    return x
