"""One spelling per operation: what decomposed or older exports write differently."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from compactor.ir.graphs import argument, aten
from compactor.passes.canonicalize.draft import Draft

_CONVOLUTIONS = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
_RENAMED = {
    aten._unsafe_view.default: aten.reshape.default,
    # A view needs the strides of the contiguous copy before it, which is gone after this pass.
    aten.view.default: aten.reshape.default,
    aten._softmax.default: aten.softmax.int,
    aten._log_softmax.default: aten.log_softmax.int,
}


def unify_spellings(draft: Draft) -> int:
    """Rewrite decomposed norms, convolutions and casts to the calls that `torch.export` writes by default."""
    count = 0
    for node in list(draft.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _RENAMED:
            node.target = _RENAMED[node.target]
            if node.target in (aten.softmax.int, aten.log_softmax.int):
                node.args, node.kwargs = node.args[:2], {}
            count += 1
        elif node.target in _MAKERS and (made := _MAKERS[node.target](node, draft)) is not None:
            draft.replace(node, made)
            count += 1
    return count


def _only_first(node: fx.Node) -> bool:
    return node.target is operator.getitem and bool(node.args[1] == 0)


def _convolution(node: fx.Node, draft: Draft) -> fx.Node | None:
    source, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    rank = len(stride)  # type: ignore[arg-type]
    if transposed or rank not in _CONVOLUTIONS:
        return None
    return draft.before(node, _CONVOLUTIONS[rank], source, weight, bias, stride, padding, dilation, groups)


def _batch_norm(node: fx.Node, call: fx.Node, draft: Draft) -> fx.Node:
    args = call.args
    return draft.before(node, aten.batch_norm.default, *args[:5], False, args[-2], args[-1], True)


def _layer_norm(node: fx.Node, call: fx.Node, draft: Draft) -> fx.Node:
    source, shape, weight, bias, eps = call.args
    return draft.before(node, aten.layer_norm.default, source, shape, weight, bias, eps)


_FIRST_RESULTS = {
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
}


def _getitem(node: fx.Node, draft: Draft) -> fx.Node | None:
    """The first result of a norm whose other results are unused."""
    call = node.args[0]
    if not isinstance(call, fx.Node) or call.target not in _FIRST_RESULTS:
        return None
    return _FIRST_RESULTS[call.target](node, call, draft) if all(map(_only_first, call.users)) else None


def _cast(node: fx.Node, draft: Draft) -> fx.Node | None:
    """``to`` that names device or layout too; only the type matters to a graph."""
    value = draft.tensor(node)
    return None if value is None else draft.before(node, aten.to.dtype, node.args[0], value.dtype)


def _transpose(node: fx.Node, draft: Draft) -> fx.Node | None:
    """``numpy_T`` of a matrix."""
    value = draft.tensor(node)
    return draft.before(node, aten.t.default, node.args[0]) if value is not None and value.dim() == 2 else None


def _index(node: fx.Node, draft: Draft) -> fx.Node | None:
    """A lookup of one index that is known, in one dimension of a known size."""
    looked_up = [(d, i) for d, i in enumerate(node.args[1]) if i is not None]  # type: ignore[arg-type]
    shapes = draft.shapes(node.args[0])
    if len(looked_up) != 1 or shapes is None:
        return None
    dim, index = looked_up[0]
    sizes = {shape[dim] for shape in shapes}
    if index.op != "get_attr" or index.target in draft.trainable or len(sizes) > 1:
        return None
    value = draft.state[str(index.target)]
    if value.shape != (1,) or value.dtype == torch.bool:
        return None
    first = int(value) % sizes.pop()
    return draft.before(node, aten.slice.Tensor, node.args[0], dim, first, first + 1)


def _average(node: fx.Node, draft: Draft) -> fx.Node | None:
    """An average pooling whose window covers the whole map, and more where it may hang over the edge."""
    source, target = draft.shapes(node.args[0]), draft.shapes(node)
    padding = argument(node, 3, "padding", 0)
    divisor = argument(node, 6, "divisor_override")
    if (
        source is None
        or target is None
        or divisor is not None
        or any(padding if isinstance(padding, list) else [padding])
    ):
        return None
    kernel = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    sizes = [size for shape in source for size in zip(shape[-2:], (*kernel, *kernel)[:2], strict=True)]
    if any(window < size for size, window in sizes) or any(shape[-2:] != (1, 1) for shape in target):
        return None
    return draft.before(node, aten.adaptive_avg_pool2d.default, node.args[0], [1, 1])


_MAKERS: dict[Any, Callable[[fx.Node, Draft], fx.Node | None]] = {
    aten.convolution.default: _convolution,
    operator.getitem: _getitem,
    aten._to_copy.default: _cast,
    aten.to.dtype_layout: _cast,
    aten.to.device: _cast,
    aten.to.other: _cast,
    aten.type_as.default: _cast,
    aten.avg_pool2d.default: _average,
    aten.numpy_T.default: _transpose,
    aten.index.Tensor: _index,
}
