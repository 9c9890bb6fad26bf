"""Ops that join, split, pad or cut axes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes, Cluster, Ids, at
from compactor.ir.graphs import argument, arguments, aten, op_name
from compactor.ir.rules import rewrite, rule
from compactor.ir.rules.view import take
from compactor.ir.slicing import Resize


@rule("cat", "concat", "concatenate")
def cat(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Labels follow each other along one dimension and are tied along the others."""
    shape = analysis.shape(node)
    dim = int(argument(node, 1, "dim", 0)) % len(shape)
    parts = [analysis.of(n) for n in arguments(node)[0] if len(analysis.shape(n)) == len(shape)]
    joint = [c.dims if (c := part.cluster(dim)) is not None else () for part in parts]
    if len({frozenset(dims) for dims in joint}) == 1 and len(joint[0]) > 1:
        return _joint_cat(parts, dim, shape)
    parts = [analysis.alone(part, dim, node, "it is concatenated") for part in parts]
    ids = [_ids(part, dim, node, analysis) for part in parts]
    rest = [_drop(part, dim) for part in parts]
    merged = analysis.merge(rest, shape[:dim] + shape[dim + 1 :], node)
    back = {d: d if d < dim else d + 1 for d in range(len(shape) - 1)}
    return Axes(shape, (*merged.remap(back, shape).clusters, Cluster((dim,), np.concatenate(ids))))


def _joint_cat(parts: list[Axes], dim: int, shape: tuple[int, ...]) -> Axes:
    first = parts[0].cluster(dim)
    assert first is not None
    arrays = []
    for part in parts:
        cluster = part.cluster(dim)
        assert cluster is not None
        arrays.append(cluster.ids.transpose([cluster.dims.index(d) for d in first.dims]))
    ids = np.concatenate(arrays, axis=first.dims.index(dim))
    return Axes(shape, (*parts[0].without(first), Cluster(first.dims, ids)))


def _ids(part: Axes, dim: int, node: fx.Node, analysis: Analysis) -> Ids:
    cluster = part.cluster(dim)
    if cluster is not None:
        return cluster.ids
    ids = analysis.coupling.fresh(part.shape[dim])
    analysis.coupling.pin(ids, node.name, "a fixed axis is concatenated here")
    return ids


def _drop(axes: Axes, dim: int) -> Axes:
    shape = axes.shape[:dim] + axes.shape[dim + 1 :]
    kept = Axes(axes.shape, axes.without(axes.cluster(dim)))
    return kept.remap({d: d if d < dim else d - 1 for d in range(len(axes.shape)) if d != dim}, shape)


@rule("stack")
def stack(node: fx.Node, analysis: Analysis) -> AxesTree:
    """A new fixed dimension; the others are tied."""
    shape = analysis.shape(node)
    dim = int(argument(node, 1, "dim", 0)) % len(shape)
    merged = analysis.merge(
        [analysis.of(n) for n in arguments(node)[0]],
        shape[:dim] + shape[dim + 1 :],
        node,
    )
    return merged.remap({d: d if d < dim else d + 1 for d in range(len(shape) - 1)}, shape)


@rule("split", "split_with_sizes", "chunk", "tensor_split")
def split(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Consecutive runs of one dimension."""
    x = analysis.of(arguments(node)[0])
    dim = int(argument(node, 2, "dim", 0)) % len(x.shape)
    parts: list[AxesTree] = []
    start = 0
    for value in analysis.program.values[node]:
        shape = tuple(value.shape)
        parts.append(take(x, dim, _run(start, shape[dim]), shape))
        start += shape[dim]
    return parts


def _run(start: int, size: int) -> Callable[[int], Ids]:
    return lambda _: np.arange(start, start + size)


@rewrite("split", "split_with_sizes", "chunk", "tensor_split")
def resize_split(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """Literal sizes of the runs."""
    dim = int(argument(old, 2, "dim", 0)) % len(resize.old_shape(arguments(old)[0]))
    sizes = [shape[dim] for shape in resize.new_shapes(old)]
    if sizes != [shape[dim] for shape in resize.old_shapes(old)]:
        new.target = aten.split_with_sizes.default
        new.args, new.kwargs = (arguments(new)[0], sizes, dim), {}


@rule("unbind", "select")
def select(node: fx.Node, analysis: Analysis) -> AxesTree:
    """One index of a dimension, which must therefore stay whole."""
    x = analysis.of(arguments(node)[0])
    dim = int(argument(node, 1, "dim", 0)) % len(x.shape)
    back = {d: d if d < dim else d - 1 for d in range(len(x.shape)) if d != dim}
    shape = x.shape[:dim] + x.shape[dim + 1 :]
    cluster = x.cluster(dim)
    if cluster is not None and len(cluster.dims) > 1:
        axis = cluster.dims.index(dim)
        analysis.coupling.tie(cluster.ids, cluster.ids.take([0], axis=axis), node.name)
        dims = tuple(d for d in cluster.dims if d != dim)
        pieces = [at(cluster.ids, i, axis) for i in range(x.shape[dim])]
        picked = [Axes(x.shape, (*x.without(cluster), Cluster(dims, p))).remap(back, shape) for p in pieces]
    else:
        x = analysis.fix(x, dim, node, "single indices of it are used")
        picked = [x.remap(back, shape)] * x.shape[dim]
    return list(picked) if op_name(node) == "unbind" else picked[int(arguments(node)[2]) % len(picked)]


@rule("slice", "narrow")
def cut(node: fx.Node, analysis: Analysis) -> AxesTree:
    """A run of one dimension; with a step, or an end that follows the batch, the dimension must stay whole."""
    x, shape = analysis.of(arguments(node)[0]), analysis.shape(node)
    dim = int(argument(node, 1, "dim", 0)) % len(x.shape)
    start, step = bounds(node)
    if shape[dim] == x.shape[dim]:
        return Axes(shape, x.clusters)
    if start is None or step != 1:
        x = analysis.fix(x, dim, node, "it is cut at a variable place or with a step")
        return Axes(shape, x.clusters)
    return take(x, dim, _run(start % x.shape[dim] if start < 0 else start, shape[dim]), shape)


def bounds(node: fx.Node) -> tuple[int | None, int]:
    """Literal start (None where it or the end is not literal) and step of a cut."""
    start: Any = argument(node, 2, "start")
    end: Any = argument(node, 3, "end" if op_name(node) == "slice" else "length")
    step: Any = argument(node, 4, "step", 1) if op_name(node) == "slice" else 1
    start = 0 if start is None else start
    literal = isinstance(start, int) and (end is None or isinstance(end, int))
    return (start if literal else None), int(step)


@rewrite("slice", "narrow")
def resize_cut(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """Start and end count what is kept before them."""
    dim = int(argument(old, 1, "dim", 0)) % len(resize.old_shape(arguments(old)[0]))
    counts = resize.counts(arguments(old)[0], dim)
    start, step = bounds(old)
    if counts is None or (counts == 1).all() or start is None or step != 1:
        return
    start = start % len(counts) if start < 0 else start
    first, size = int(counts[:start].sum()), resize.new_shape(old)[dim]
    end = first + size if op_name(old) == "slice" else size
    new.args, new.kwargs = (arguments(new)[0], dim, first, end), {}


@rule("pad", "constant_pad_nd")
def pad(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Padding of a prunable dimension is new indices, free to follow whatever they meet."""
    x, shape = analysis.of(arguments(node)[0]), analysis.shape(node)
    for d, before, after in padding(node, len(shape)):
        x = analysis.alone(x, d, node, "it is padded")
        cluster = x.cluster(d)
        if cluster is None or (before, after) == (0, 0):
            continue
        if before < 0 or after < 0 or not _constant(node):
            x = analysis.fix(x, d, node, "it is padded with its own content or cropped")
            continue
        fresh = analysis.coupling.fresh(before + after)
        ids = np.concatenate([fresh[:before], cluster.ids, fresh[before:]])
        x = Axes(x.shape, (*x.without(cluster), Cluster((d,), ids)))
    return Axes(shape, x.clusters)


def padding(node: fx.Node, rank: int) -> list[tuple[int, int, int]]:
    """(dimension, before, after) for every padded dimension."""
    amounts: Any = arguments(node)[1]
    pairs = zip(amounts[::2], amounts[1::2], strict=True)
    return [(rank - 1 - i, int(a), int(b)) for i, (a, b) in enumerate(pairs)]


def _constant(node: fx.Node) -> bool:
    return op_name(node) == "constant_pad_nd" or argument(node, 2, "mode", "constant") == "constant"


@rewrite("pad", "constant_pad_nd")
def resize_pad(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """Padding that is removed is not padded, padding that repeats is padded as often."""
    amounts: list[Any] = list(arguments(new)[1])
    for i, (d, before, after) in enumerate(padding(old, len(resize.old_shape(old)))):
        counts = resize.counts(old, d)
        if counts is not None and (before, after) != (0, 0):
            amounts[2 * i] = int(counts[:before].sum())
            amounts[2 * i + 1] = int(counts[len(counts) - after :].sum()) if after else 0
    new.update_arg(1, amounts)


@rule("flip", "roll")
def moved(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Indices change places along a dimension; a prunable one must stay whole."""
    x = analysis.of(arguments(node)[0])
    dims: Any = argument(node, 2 if op_name(node) == "roll" else 1, "dims", ())
    for d in ([dims] if isinstance(dims, int) else dims) or range(len(x.shape)):
        x = analysis.fix(x, d, node, f"{op_name(node)} moves its indices")
    return Axes(analysis.shape(node), x.clusters)
