"""Normalisations. Under a mask, statistics run over what is kept (CoFi, ACL 2022, section 3.1)."""

import torch
from torch import fx

from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.graphs import argument, arguments, aten
from compactor.ir.masking import Masking
from compactor.ir.repeats import Repeats
from compactor.ir.rules import masked, rewrite, rule, summing
from compactor.ir.slicing import Resize


@rule("batch_norm", "instance_norm", "_native_batch_norm_legit_no_training")
def batch_norm(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Weight, bias and running statistics follow the channels."""
    x = analysis.alone(analysis.of(arguments(node)[0]), 1, node, "it is normalised per channel")
    for parameter in arguments(node)[1:5]:
        if isinstance(parameter, fx.Node):
            analysis.tie(x, 1, analysis.of(parameter), 0, node, "statistics of a fixed axis")
    return x


@rule("layer_norm", "rms_norm")
def layer_norm(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Weight and bias follow the normalised dimensions."""
    x = analysis.of(arguments(node)[0])
    count = len(arguments(node)[1])
    for d in range(len(x.shape) - count, len(x.shape)):
        cluster = x.cluster(d)
        if cluster is not None and len(cluster.dims) > 1:
            x = analysis.fix(x, d, node, "it is normalised within each unit")
    for parameter in arguments(node)[2:4]:
        if isinstance(parameter, fx.Node):
            weight = analysis.of(parameter)
            for d in range(count):
                analysis.tie(x, len(x.shape) - count + d, weight, d, node, "it normalises a fixed axis")
    return x


@rewrite("layer_norm", "rms_norm")
def resize_layer_norm(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """``normalized_shape`` is the end of the input's shape."""
    count = len(arguments(old)[1])
    new.update_arg(1, list(resize.new_shape(old)[-count:]))


@masked("layer_norm", "rms_norm")
def mask_layer_norm(old: fx.Node, new: fx.Node, masking: Masking) -> None:
    """Mean and variance over kept indices only."""
    count = len(arguments(old)[1])
    rank = len(masking.shape(old))
    dims = list(range(rank - count, rank))
    gate = masking.gate(arguments(old)[0], dims, new)
    if gate is None:
        return
    weight, bias = argument(new, 2, "weight"), None
    if new.target is aten.layer_norm.default:
        bias = argument(new, 3, "bias")
        eps = argument(new, 4, "eps", 1e-5)
    else:
        eps = argument(new, 3, "eps")
        eps = torch.finfo(masking.dtype(old)).eps if eps is None else eps
    centre = new.target is aten.layer_norm.default
    result = masking.normalise(new, arguments(new)[0], gate, dims, float(eps), centre=centre)
    with masking.graph.inserting_before(new):
        if isinstance(weight, fx.Node):
            result = masking.graph.call_function(aten.mul.Tensor, (result, weight))
        if isinstance(bias, fx.Node):
            result = masking.graph.call_function(aten.add.Tensor, (result, bias))
    new.replace_all_uses_with(result)
    masking.graph.erase_node(new)


@summing("layer_norm", "rms_norm")
def normalised(node: fx.Node, repeats: Repeats) -> None:
    """Mean and variance weigh every index alike."""
    repeats.averaged(node, arguments(node)[0], range(-len(arguments(node)[1]), 0))


@rule("group_norm")
def group_norm(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Whole groups are removed where there are many; the same channels of every group where there are few."""
    x = analysis.alone(analysis.of(arguments(node)[0]), 1, node, "it is normalised per group")
    for parameter in arguments(node)[2:4]:
        if isinstance(parameter, fx.Node):
            analysis.tie(x, 1, analysis.of(parameter), 0, node, "it normalises a fixed axis")
    cluster = x.cluster(1)
    if cluster is not None:
        ids = cluster.ids.reshape(int(arguments(node)[1]), -1)
        analysis.coupling.tie(ids, ids[:, :1] if ids.shape[0] >= ids.shape[1] else ids[:1], node.name)
    return x


def _whole_groups(node: fx.Node, channels: int) -> bool:
    groups = int(arguments(node)[1])
    return groups >= channels // groups


@rewrite("group_norm")
def resize_group_norm(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """Fewer groups, or the same number of smaller ones."""
    before, after = resize.old_shape(arguments(old)[0])[1], resize.new_shape(arguments(old)[0])[1]
    if _whole_groups(old, before):
        new.update_arg(1, after // (before // int(arguments(old)[1])))


@summing("group_norm")
def normalised_in_groups(node: fx.Node, repeats: Repeats) -> None:
    """Groups that repeat whole keep their statistics."""
    if not _whole_groups(node, repeats.shape(node)[1]):
        repeats.averaged(node, arguments(node)[0], [1])


@masked("group_norm")
def mask_group_norm(old: fx.Node, new: fx.Node, masking: Masking) -> None:
    """Statistics change only where channels within a group are removed: then per group over kept channels."""
    shape = masking.shape(old)
    gate = None if _whole_groups(old, shape[1]) else masking.gate(arguments(old)[0], [1], new)
    if gate is None:
        return
    graph, args, groups = masking.graph, arguments(new), int(arguments(old)[1])
    with graph.inserting_before(new):
        split, gate = (graph.call_function(aten.unflatten.int, (n, 1, [groups, -1])) for n in (args[0], gate))
    eps = float(argument(new, 4, "eps", 1e-5))
    result = masking.normalise(new, split, gate, list(range(2, len(shape) + 1)), eps, centre=True)
    with graph.inserting_before(new):
        result = graph.call_function(aten.flatten.using_ints, (result, 1, 2))
        for parameter, op in zip(args[2:4], (aten.mul.Tensor, aten.add.Tensor), strict=False):
            if isinstance(parameter, fx.Node):
                view = graph.call_function(aten.view.default, (parameter, [1, -1, *[1] * (len(shape) - 2)]))
                result = graph.call_function(op, (result, view))
    new.replace_all_uses_with(result)
    graph.erase_node(new)
