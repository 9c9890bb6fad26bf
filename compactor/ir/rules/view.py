"""Views: reshape, permute, squeeze, expand, repeat."""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes, Cluster
from compactor.ir.graphs import arguments, op_name
from compactor.ir.rules import rewrite, rule
from compactor.ir.slicing import Resize


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as")
def reshape(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Same elements in the same order under another shape."""
    return analysis.reshape(analysis.of(arguments(node)[0]), analysis.shape(node), node)


@rewrite("view", "reshape", "_unsafe_view", "expand")
def resize_view(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """Literal sizes follow the result's own sizes."""
    new.update_arg(1, resized(list(arguments(old)[1]), list(arguments(new)[1]), old, resize))


@rewrite("unflatten")
def resize_unflatten(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """Literal sizes of the dimensions that one was split into."""
    sizes: list[Any] = list(arguments(new)[2])
    first = int(arguments(old)[1]) % len(resize.old_shape(arguments(old)[0]))
    for i, size in enumerate(sizes):
        if isinstance(size, int) and size != -1:
            sizes[i] = resize.new_shape(old)[first + i]
    new.update_arg(2, sizes)


def resized(old_sizes: list[Any], new_sizes: list[Any], old: fx.Node, resize: Resize) -> list[Any]:
    """A size list whose literals are those of the sliced result; one that follows the batch is inferred or scaled."""
    before, after = resize.old_shape(old), resize.new_shape(old)
    for d, (size, was, now) in enumerate(zip(old_sizes, before, after, strict=True)):
        if was == now or size == -1:
            continue
        if isinstance(size, int):
            new_sizes[d] = now
        else:
            new_sizes[d] = -1 if -1 not in new_sizes else _scaled(new_sizes[d], now, was)
    return new_sizes


def _scaled(size: fx.Node, now: int, was: int) -> fx.Node:
    """size * now / was, computed once, where the size is, and as simple as exporting again would make it."""
    if size.target is operator.mul:
        base, factor = size.args
        if isinstance(base, fx.Node) and isinstance(factor, int):
            size, now = base, now * factor
    common = math.gcd(now, was)
    for call, number in ((operator.mul, now // common), (operator.floordiv, was // common)):
        if number != 1:
            size = _after(size, call, number)
    return size


def _after(size: fx.Node, call: Callable[[Any, Any], Any], number: int) -> fx.Node:
    found = next((u for u in size.users if u.target is call and u.args == (size, number)), None)
    if found is not None:
        return found
    with size.graph.inserting_after(size):
        return size.graph.call_function(call, (size, number))


@rule("permute", "transpose", "t", "movedim", "numpy_T", "swapaxes", "adjoint", "mT")
def permute(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Dimensions change places."""
    axes = analysis.of(arguments(node)[0])
    order = _order(node, len(axes.shape))
    return axes.remap({source: d for d, source in enumerate(order)}, analysis.shape(node))


def _order(node: fx.Node, rank: int) -> list[int]:
    dims = list(range(rank))
    name = op_name(node)
    if name == "permute":
        return [int(d) % rank for d in arguments(node)[1]]
    if name == "movedim":
        values = np.moveaxis(np.empty(range(2, rank + 2)), arguments(node)[1], arguments(node)[2])
        return [n - 2 for n in values.shape]
    a, b = (arguments(node)[1], arguments(node)[2]) if len(arguments(node)) > 2 else (-2, -1)
    if rank > 1:
        dims[a], dims[b] = dims[b], dims[a]
    return dims


@rule("expand", "expand_as", "broadcast_to")
def expand(node: fx.Node, analysis: Analysis) -> AxesTree:
    """A dimension repeated to a literal size is free to follow whatever it meets."""
    axes, shape = analysis.of(arguments(node)[0]), analysis.shape(node)
    shift = len(shape) - len(axes.shape)
    sizes: Any = arguments(node)[1] if op_name(node) == "expand" else [None] * len(shape)
    clusters = list(axes.remap({d: d + shift for d in range(len(axes.shape))}, shape).clusters)
    for d, size in enumerate(shape):
        source = axes.shape[d - shift] if d >= shift else 1
        if source == 1 and size > 1 and isinstance(sizes[d], int):
            clusters.append(Cluster((d,), analysis.coupling.fresh(size, copies=True)))
    return Axes(shape, tuple(clusters))


@rule("repeat")
def repeat(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Tiles: every copy of an index is that index."""
    axes, shape = analysis.of(arguments(node)[0]), analysis.shape(node)
    times: list[Any] = list(arguments(node)[1])
    shift = len(shape) - len(axes.shape)
    clusters = []
    for cluster in axes.clusters:
        reps = [times[d + shift] if isinstance(times[d + shift], int) else 0 for d in cluster.dims]
        if 0 in reps:
            return _pinned(node, analysis, "it is repeated a variable number of times")
        clusters.append(Cluster(tuple(d + shift for d in cluster.dims), np.tile(cluster.ids, reps)))
    return Axes(shape, tuple(clusters))


@rule("repeat_interleave")
def repeat_interleave(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Each index several times in a row, as grouped-query attention does with its key heads."""
    if not isinstance(arguments(node)[1], int) or len(arguments(node)) < 3:
        return _pinned(node, analysis, "it is repeated a variable number of times")
    axes, dim = analysis.of(arguments(node)[0]), int(arguments(node)[2])
    return take(
        axes, dim % len(axes.shape), lambda n: np.repeat(np.arange(n), int(arguments(node)[1])), analysis.shape(node)
    )


def take(axes: Axes, dim: int, indices: Any, shape: tuple[int, ...]) -> Axes:
    """Labels after picking ``indices(size)`` along one dimension."""
    cluster = axes.cluster(dim)
    if cluster is None:
        return Axes(shape, axes.clusters)
    axis = cluster.dims.index(dim)
    picked = Cluster(cluster.dims, cluster.ids.take(indices(cluster.ids.shape[axis]), axis=axis))
    return Axes(shape, (*axes.without(cluster), picked))


def _pinned(node: fx.Node, analysis: Analysis, reason: str) -> AxesTree:
    for source in node.all_input_nodes:
        analysis.pin_all(analysis.axes[source], node, reason)
    return Axes(analysis.shape(node))


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Space and depth trade places: all sub-channels of a channel stay together."""
    axes, factor = analysis.of(arguments(node)[0]), int(arguments(node)[1])
    dim = len(axes.shape) - 3
    axes = analysis.alone(axes, dim, node, "it is shuffled into space")
    cluster = axes.cluster(dim)
    if cluster is None:
        return Axes(analysis.shape(node), axes.clusters)
    if op_name(node) == "pixel_unshuffle":
        ids = np.repeat(cluster.ids, factor**2)
    else:
        groups = cluster.ids.reshape(-1, factor**2)
        analysis.coupling.tie(groups, groups[:, :1], node.name)
        ids = groups[:, 0]
    return Axes(analysis.shape(node), (*axes.without(cluster), Cluster(cluster.dims, ids)))


@rule("channel_shuffle")
def channel_shuffle(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Channels (groups, n) become (n, groups): what is kept must be a product."""
    axes, groups = analysis.of(arguments(node)[0]), int(arguments(node)[1])
    axes = analysis.alone(axes, 1, node, "it is shuffled")
    cluster = axes.cluster(1)
    if cluster is None:
        return Axes(analysis.shape(node), axes.clusters)
    split = cluster.ids.reshape(groups, -1)
    analysis.coupling.tie(split, split[:1], node.name)
    return Axes(analysis.shape(node), (*axes.without(cluster), Cluster((1,), split.T.ravel())))


@rule("getitem")
def getitem(node: fx.Node, analysis: Analysis) -> AxesTree:
    """One of several results."""
    source = analysis.axes[arguments(node)[0]]
    return source[arguments(node)[1]] if isinstance(source, list) else None
