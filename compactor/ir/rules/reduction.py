"""Reductions: sums and means run over kept indices; order statistics and softmax need the whole axis."""

from typing import Any

from torch import fx

from compactor.ir.analysis import Analysis, AxesTree, fixed
from compactor.ir.axes import Axes, Cluster
from compactor.ir.graphs import argument, arguments, aten, op_name
from compactor.ir.masking import Masking
from compactor.ir.repeats import Repeats
from compactor.ir.rules import masked, rule, summing


@rule("mean", "sum", "linalg_vector_norm", "norm")
def summed(node: fx.Node, analysis: Analysis) -> AxesTree:
    """A summed axis leaves; its mask does not change the sum, and a mean divides by what is kept."""
    return reduced(node, analysis, "")


@rule(
    *[
        "amax",
        "amin",
        "max",
        "min",
        "argmax",
        "argmin",
        "var",
        "std",
        "var_mean",
        "std_mean",
        "prod",
        "any",
        "all",
        "median",
        "mode",
        "logsumexp",
        "count_nonzero",
        "topk",
        "sort",
        "argsort",
        "cumsum",
        "cumprod",
        "softmax",
        "log_softmax",
        "_softmax",
        "_log_softmax",
        "normalize",
        "glu",
        "diff",
    ]
)
def whole(node: fx.Node, analysis: Analysis) -> AxesTree:
    """The op needs every index of the axis it works along."""
    if op_name(node) == "glu":
        return _glu(node, analysis)
    return reduced(node, analysis, f"{op_name(node)} needs the whole axis")


def reduced_dims(node: fx.Node, rank: int) -> list[int]:
    """The dimensions an op works along; all of them when it does not say."""
    position = 2 if op_name(node) in ("linalg_vector_norm", "norm", "topk") else 1
    dims: Any = argument(node, position, "dim")
    if op_name(node) in ("topk", "sort", "argsort") and dims is None:
        dims = -1
    if dims is None or dims == [] or isinstance(dims, bool):
        return list(range(rank))
    return [d % rank for d in ([dims] if isinstance(dims, int) else dims)]


def reduced(node: fx.Node, analysis: Analysis, reason: str) -> AxesTree:
    """Labels after a reduction, or unchanged ones where the shape stays."""
    x = analysis.of(arguments(node)[0])
    if op_name(node) in ("max", "min") and len(arguments(node)) > 1 and isinstance(arguments(node)[1], fx.Node):
        return analysis.merge([x, analysis.of(arguments(node)[1])], analysis.shape(node), node)
    dims = reduced_dims(node, len(x.shape))
    for d in dims:
        cluster = x.cluster(d)
        if cluster is not None and (reason or len(cluster.dims) > 1):
            x = analysis.fix(x, d, node, reason or "it is summed within each unit")
    value = analysis.program.values[node]
    if isinstance(value, (tuple, list)):
        return [_left(x, dims, tuple(v.shape)) for v in value]
    return _left(x, dims, tuple(value.shape))


def _left(x: Axes, dims: list[int], shape: tuple[int, ...]) -> Axes:
    kept = tuple(c for c in x.clusters if not set(c.dims) & set(dims))
    if len(shape) == len(x.shape):
        return Axes(shape, kept)
    left = [d for d in range(len(x.shape)) if d not in dims]
    return Axes(x.shape, kept).remap({d: i for i, d in enumerate(left)}, shape)


def _glu(node: fx.Node, analysis: Analysis) -> AxesTree:
    x = analysis.of(arguments(node)[0])
    dim = int(argument(node, 1, "dim", -1)) % len(x.shape)
    x = analysis.alone(x, dim, node, "it is gated by its other half")
    cluster = x.cluster(dim)
    if cluster is None:
        return fixed(analysis.program.values[node])
    value, gate = cluster.ids.reshape(2, -1)
    analysis.coupling.tie(value, gate, node.name)
    return Axes(analysis.shape(node), (*x.without(cluster), Cluster((dim,), value)))


@masked("mean", "sum", "linalg_vector_norm", "norm")
def mask_sum(old: fx.Node, new: fx.Node, masking: Masking) -> None:
    """Removed indices count neither in the sum nor in the mean's divisor."""
    source = arguments(old)[0]
    dims = reduced_dims(old, len(masking.shape(source)))
    gate = masking.gate(source, dims, new)
    if gate is None:
        return
    graph = masking.graph
    with graph.inserting_before(new):
        new.update_arg(0, graph.call_function(aten.mul.Tensor, (arguments(new)[0], gate)))
    if op_name(old) == "mean":
        with graph.inserting_before(new):
            share = masking.share(gate, dims, keep=bool(argument(old, 2, "keepdim", False)))
        with graph.inserting_after(new):
            scaled = graph.call_function(aten.div.Tensor, (new, share))
        new.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)


@summing("mean", "sum", "linalg_vector_norm", "norm")
def summed_dims(node: fx.Node, repeats: Repeats) -> None:
    """A mean weighs every index alike; a sum of activations grows."""
    value = arguments(node)[0]
    dims = reduced_dims(node, len(repeats.shape(value)))
    if op_name(node) == "mean":
        repeats.averaged(node, value, dims)
    else:
        for dim in dims:
            repeats.contracted(node, [(value, dim)])
