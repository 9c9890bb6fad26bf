"""Masks as `transformers` builds them: gathers by ``arange``, conditions that always hold, the least of all floats."""

import math
from typing import Any

import torch
from torch import fx

from compactor.ir.graphs import aten
from compactor.passes.canonicalize.draft import Draft

_LIMIT = torch.finfo(torch.bfloat16).max
_FILLS = (aten.masked_fill.Scalar, aten.where.ScalarSelf, aten.where.ScalarOther)


def simplify_masks(draft: Draft) -> int:
    """Turn gathers by ``arange`` into axis insertions, drop conditions that always hold, bound what is filled in."""
    count = 0
    for node in list(draft.graph.nodes):
        made = _as_unsqueezes(node, draft) or _other_side(node, draft)
        if made is not None:
            draft.replace(node, made)
        count += made is not None or _drop_expand(node, draft) or _bound(node)
    return count


def _bound(node: fx.Node) -> bool:
    """The least float32 stands for minus infinity; bfloat16, in which models are trained, has none so small."""
    if node.target not in _FILLS:
        return False
    args = tuple(max(-_LIMIT, min(_LIMIT, a)) if isinstance(a, float) and _too_large(a) else a for a in node.args)
    changed = args != node.args
    node.args = args
    return changed


def _too_large(value: float) -> bool:
    return math.isfinite(value) and abs(value) > _LIMIT


def _as_unsqueezes(node: fx.Node, draft: Draft) -> fx.Node | None:
    """``x[arange(len 0)[:, None], arange(len 1)[None, :]]`` is ``x``, axes inserted where the indices have them."""
    if node.target is not aten.index.Tensor:
        return None
    source, indices = node.args
    shapes, results = draft.shapes(source), draft.shapes(node)
    if shapes is None or results is None or not isinstance(indices, (list, tuple)) or len(indices) != len(shapes[0]):
        return None
    axes = [_counts(index, [shape[i] for shape in shapes], draft) for i, index in enumerate(indices)]
    if any(axis is None for axis in axes):
        return None
    # Indices broadcast from the right, so an axis is known by its distance from the end.
    places = [len(results[0]) - axis for axis in axes if axis is not None]
    if sorted(set(places)) != places:
        return None
    for place in range(len(results[0])):
        if place not in places:
            source = draft.before(node, aten.unsqueeze.default, source, place)
    return source  # type: ignore[return-value]


def _counts(index: Any, sizes: list[int], draft: Draft) -> int | None:
    """The axis, from the end, along which ``index`` counts 0, 1, ... to ``sizes``; None if it does something else."""
    shapes = draft.shapes(index)
    if shapes is None or any(size == 1 for size in sizes):
        return None
    while isinstance(index, fx.Node) and index.target is aten.unsqueeze.default:
        index = index.args[0]
    if not isinstance(index, fx.Node) or index.target is not aten.arange.default:
        return None
    long = [[len(s) - i for i, n in enumerate(s) if n != 1] for s in shapes]
    lengths = [max(s) for s in shapes]
    return long[0][0] if len(long[0]) == 1 and long[0] == long[1] and lengths == sizes else None


def _other_side(node: fx.Node, draft: Draft) -> fx.Node | None:
    """``true & mask`` is ``mask``, when that has the shape already (an attention mask broadcasts anyway)."""
    if node.target not in (aten.__and__.Tensor, aten.bitwise_and.Tensor, aten.logical_and.default):
        return None
    for truth, mask in (node.args[:2], node.args[1::-1]):
        if isinstance(mask, fx.Node) and _holds(truth) and _fits(node, mask, draft):
            return mask
    return None


def _fits(node: fx.Node, mask: fx.Node, draft: Draft) -> bool:
    if draft.same(node, mask):
        return True
    wide, own = draft.shapes(node), draft.shapes(mask)
    if wide is None or own is None or len(wide[0]) != len(own[0]) or draft.value(node).dtype != draft.value(mask).dtype:
        return False
    kept = [all(w[i] == o[i] for w, o in zip(wide, own, strict=True)) for i in range(len(own[0]))]
    return all(_widens(user, node, kept) for user in node.users)


def _widens(user: fx.Node, mask: fx.Node, kept: list[bool]) -> bool:
    """Whether a user broadcasts the mask itself, wherever the mask is now narrower."""
    if user.target is aten.scaled_dot_product_attention.default:
        return user.args[3:4] == (mask,) and len(kept) == 4
    if user.target is not aten.expand.default:
        return False
    sizes: list[Any] = list(user.args[1])[-len(kept) :]  # type: ignore[arg-type]
    return all(size != -1 or same for size, same in zip(sizes, kept, strict=True))


def _drop_expand(node: fx.Node, draft: Draft) -> bool:
    """Let attention broadcast its mask itself."""
    mask = node.args[3] if node.target is aten.scaled_dot_product_attention.default and len(node.args) > 3 else None
    if not isinstance(mask, fx.Node) or mask.target is not aten.expand.default:
        return False
    shapes = draft.shapes(mask.args[0])
    if shapes is None or len(shapes[0]) not in (2, 4):
        return False
    node.update_arg(3, mask.args[0])
    return True


def _holds(node: Any) -> bool:
    """Whether a boolean tensor is true everywhere, by construction."""
    if not isinstance(node, fx.Node):
        return False
    if node.target in (aten.new_ones.default, aten.ones.default, aten.ones_like.default):
        return True
    if node.target is aten.ge.Scalar:
        least = node.args[1]
        return isinstance(least, (int, float)) and least <= 0 and _never_negative(node.args[0])
    through = (aten.unsqueeze.default, aten.expand.default, aten.to.dtype)
    return node.target in through and _holds(node.args[0])


def _never_negative(node: Any) -> bool:
    while isinstance(node, fx.Node) and node.target in (aten.unsqueeze.default, aten.expand.default):
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target is aten.arange.default
