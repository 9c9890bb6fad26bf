"""Convolutions and pooling."""

import numpy as np
from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes, Cluster
from compactor.ir.graphs import argument, arguments, groups_of, groups_place, op_name, set_argument
from compactor.ir.repeats import Repeats
from compactor.ir.rules import rewrite, rule, summing
from compactor.ir.slicing import Resize

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@rule(*_CONVOLUTIONS, *_TRANSPOSED, "convolution")
def convolution(node: fx.Node, analysis: Analysis) -> AxesTree:
    """(n, c, ...) with weight (out, c / groups, ...), or (c, out / groups, ...) when transposed."""
    x, weight, shape = analysis.of(arguments(node)[0]), analysis.of(arguments(node)[1]), analysis.shape(node)
    if len(shape) != len(weight.shape):
        analysis.pin_all([x, weight], node, "a convolution without a batch dimension")
        return Axes(shape)
    x = analysis.alone(x, 1, node, "a convolution mixes its channels")
    for d in range(2, len(shape)):
        x = analysis.fix(x, d, node, "a convolution slides along it")
        weight = analysis.fix(weight, d, node, "it is the window of a convolution")
    groups = groups_of(node)
    outside, inside = (1, 0) if _transposed(node) else (0, 1)
    if groups == 1:
        analysis.tie(x, 1, weight, inside, node, "it convolves the model's input or a fixed axis")
        out = weight.cluster(outside)
    else:
        out = _grouped(node, analysis, x, weight, groups)
    result = Axes(shape, (*x.without(x.cluster(1)), *([Cluster((1,), out.ids)] if out is not None else [])))
    bias = argument(node, 2, "bias")
    if isinstance(bias, fx.Node):
        analysis.tie(result, 1, analysis.of(bias), 0, node, "its bias")
    return result


def _transposed(node: fx.Node) -> bool:
    return op_name(node) in _TRANSPOSED or (op_name(node) == "convolution" and bool(argument(node, 6, "transposed")))


def _grouped(node: fx.Node, analysis: Analysis, x: Axes, weight: Axes, groups: int) -> Cluster | None:
    """Whole groups are removed where there are many, the same channels of every group where there are few."""
    channels, out = x.cluster(1), weight.cluster(0)
    if _transposed(node) or channels is None or out is None:
        reason = "a grouped transposed convolution" if _transposed(node) else "a grouped convolution of a fixed axis"
        analysis.pin_all([x, weight], node, reason)
        return None
    before, after = channels.ids.reshape(groups, -1), out.ids.reshape(groups, -1)
    if groups >= min(before.shape[1], after.shape[1]):
        unit = before[:, :1]
        analysis.coupling.tie(before, unit, node.name)
        analysis.coupling.tie(after, unit, node.name)
        analysis.fix(weight, 1, node, "it lies within one group of a convolution")
    else:
        analysis.coupling.tie(before, before[:1], node.name)
        analysis.coupling.tie(after, after[:1], node.name)
        inside = weight.cluster(1)
        if inside is not None:
            analysis.coupling.tie(before[0], inside.ids, node.name)
    return Cluster((0,), out.ids)


@rewrite(*_CONVOLUTIONS, "convolution")
def resize_groups(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """The number of groups is what the channels leave."""
    if groups_of(old) > 1 and not _transposed(old):
        channels, per_group = resize.new_shape(arguments(old)[0])[1], resize.new_shape(arguments(old)[1])[1]
        set_argument(new, groups_place(new), "groups", channels // per_group)


@summing(*_CONVOLUTIONS, *_TRANSPOSED, "convolution")
def summed_channels(node: fx.Node, repeats: Repeats) -> None:
    """The weight's input channels: those of one group."""
    repeats.contracted(node, [(arguments(node)[1], 0 if _transposed(node) else 1)])


@rule(
    *(f"{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max", "lp") for n in (1, 2, 3)),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    *(f"_adaptive_avg_pool{n}d" for n in (2, 3)),
    *(f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d", "bicubic2d", "linear1d")),
    "im2col",
)
def pool(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Channels pass, space is fixed."""
    value = analysis.program.values[node]
    shapes = [tuple(v.shape) for v in value] if isinstance(value, (tuple, list)) else [tuple(value.shape)]
    x = analysis.of(arguments(node)[0])
    if op_name(node) == "im2col":
        return _unfold(node, analysis, x, shapes[0])
    for d in range(2, len(x.shape)):
        x = analysis.fix(x, d, node, "a window slides along it")
    results = [Axes(shape, x.clusters) for shape in shapes]
    return list(results) if isinstance(value, (tuple, list)) else results[0]


def _unfold(node: fx.Node, analysis: Analysis, x: Axes, shape: tuple[int, ...]) -> Axes:
    x = analysis.alone(x, 1, node, "its windows are unfolded")
    cluster = x.cluster(1)
    if cluster is None:
        return Axes(shape, x.clusters)
    ids = np.repeat(cluster.ids, shape[1] // cluster.ids.size)
    return Axes(shape, (*x.without(cluster), Cluster((1,), ids)))
