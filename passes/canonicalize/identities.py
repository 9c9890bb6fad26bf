"""Nodes that compute their own input: casts to the same type, aliases, copies, whole views, eval-mode dropout."""

from collections.abc import Callable

from torch import fx

from compactor.ir.graphs import argument, aten
from compactor.passes.canonicalize.draft import Draft

_COPIES = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
}
_CASTS = {
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
    aten._to_copy.default,
    aten.type_as.default,
}
_VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.expand.default,
    aten.expand_as.default,
    aten.flatten.using_ints,
    aten.slice.Tensor,
    aten.repeat.default,
    aten.constant_pad_nd.default,
    aten.pad.default,
}
_DROPOUTS = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default, aten.dropout_.default}
_NEUTRAL = {aten.add.Tensor: 0, aten.sub.Tensor: 0, aten.mul.Tensor: 1, aten.div.Tensor: 1}


def _is_copy(node: fx.Node, draft: Draft) -> bool:
    return node.target in _COPIES


def _is_cast(node: fx.Node, draft: Draft) -> bool:
    return node.target in _CASTS and draft.same(node, node.args[0])


def _is_whole_view(node: fx.Node, draft: Draft) -> bool:
    # A step or an offset would change the shape, so an equal shape means all elements in their places.
    return node.target in _VIEWS and draft.same(node, node.args[0])


def _is_dropout(node: fx.Node, draft: Draft) -> bool:
    """Dropout goes in training too: students are regularised by the teacher's soft targets instead."""
    return node.target in _DROPOUTS and (argument(node, 2, "train") is False or argument(node, 1, "p") in (0, 0.0))


def _is_neutral(node: fx.Node, draft: Draft) -> bool:
    if node.target not in _NEUTRAL or "rounding_mode" in node.kwargs or isinstance(node.args[1], fx.Node):
        return False
    return bool(node.args[1] == _NEUTRAL[node.target]) and draft.same(node, node.args[0])


def _is_still_permutation(node: fx.Node, draft: Draft) -> bool:
    if node.target is aten.permute.default:
        order = node.args[1]
        return isinstance(order, (list, tuple)) and all(d == i for i, d in enumerate(order))
    return node.target is aten.transpose.int and node.args[1] == node.args[2]


_TESTS: tuple[Callable[[fx.Node, Draft], bool], ...] = (
    _is_copy,
    _is_cast,
    _is_whole_view,
    _is_dropout,
    _is_neutral,
    _is_still_permutation,
)


def remove_identities(draft: Draft) -> int:
    """Remove nodes that return their first input."""
    count = 0
    for node in list(draft.graph.nodes):
        if node.op != "call_function" or not any(test(node, draft) for test in _TESTS):
            continue
        source = node.args[0]
        if isinstance(source, fx.Node):
            draft.replace(node, source)
            count += 1
    return count
