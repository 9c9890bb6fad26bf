"""Attention spelled out (product, scale, mask, softmax, product) becomes ``scaled_dot_product_attention``."""

from dataclasses import dataclass, field
from math import isclose, isinf
from typing import Any

import torch
from torch import fx

from compactor.ir.graphs import argument, aten
from compactor.passes.canonicalize.draft import Draft

_PRODUCTS = (aten.matmul.default, aten.bmm.default)
_SOFTMAXES = (aten.softmax.int, aten._softmax.default)
_NEVER = -1e30
"""Scores at or below this weigh nothing beside any real one, and absorb any real one added to them."""


@dataclass
class _Scores:
    """What the scores are made of: ``scale * query @ keys_transposed + sum(masks)``."""

    product: fx.Node
    scale: float = 1.0
    masks: list[fx.Node] = field(default_factory=list)
    fills: list[tuple[fx.Node, float, bool]] = field(default_factory=list)


def recognise_attention(draft: Draft) -> int:
    """Replace every spelled-out attention whose softmax runs over keys and whose masks only broadcast."""
    count = 0
    for node in list(draft.graph.nodes):
        if node.target not in _PRODUCTS or getattr(node.args[0], "target", None) not in _SOFTMAXES:
            continue
        reason = _refusal(node.args[0], draft)
        scores = _scores(node.args[0].args[0], draft) if reason is None else None
        if isinstance(scores, _Scores):
            reason = _unfit(scores, node, draft)
        if not isinstance(scores, _Scores) or reason is not None:
            draft.skip(node, f"not recognised as attention: {reason or scores}")
            continue
        _replace(node, scores, draft)
        count += 1
    return count


def _refusal(softmax: fx.Node, draft: Draft) -> str | None:
    value, source = draft.tensor(softmax), draft.tensor(softmax.args[0])
    if value is None or source is None:
        return "its shape is unknown"
    if softmax.args[1] not in (-1, value.dim() - 1):
        return f"softmax over dimension {softmax.args[1]} instead of the last"
    if value.dtype != source.dtype:
        return f"softmax changes the type to {value.dtype}"
    return "the attention weights are used elsewhere" if len(softmax.users) > 1 else None


def _scores(node: object, draft: Draft) -> _Scores | str:
    """Peel scale and masks off the scores, from the softmax down; or why that is not possible."""
    masks: list[fx.Node] = []
    fills: list[tuple[fx.Node, float, bool]] = []
    scale = 1.0
    while isinstance(node, fx.Node):
        if len(node.users) > 1:
            return f"{node.name} is used elsewhere"
        factor = _factor(node, draft)
        if node.target in _PRODUCTS:
            return _Scores(node, scale, masks, fills)
        if factor is not None:
            node, scale = node.args[0], scale * factor
        elif scale == 1.0 and node.target is aten.add.Tensor and argument(node, 2, "alpha", 1) == 1:
            if fills:
                return "a fill lies over an added mask"
            main, mask = _split_sum(node, draft)
            if mask is None:
                return f"neither side of {node.name} is a mask"
            masks.append(mask)
            node = main
        elif scale == 1.0 and (fill := _fill(node, draft)) is not None:
            node, mask, value, keep = fill
            fills.append((mask, value, keep))
        else:
            return f"{node.name} ({node.target}) between product and softmax"
    return "the scores are not a product"


def _factor(node: fx.Node, draft: Draft) -> float | None:
    """The number a node multiplies its first input by, if that is what it does."""
    if node.target in (aten.mul.Tensor, aten.mul.Scalar):
        return draft.number(node.args[1])
    if node.target in (aten.div.Tensor, aten.div.Scalar) and "rounding_mode" not in node.kwargs:
        number = draft.number(node.args[1])
        return 1 / number if number else None
    return None


def _split_sum(node: fx.Node, draft: Draft) -> tuple[fx.Node | None, fx.Node | None]:
    """The side that leads to the product, and the mask."""
    for main, mask in (node.args[:2], node.args[1::-1]):
        if isinstance(main, fx.Node) and isinstance(mask, fx.Node) and _leads_to_product(main, draft):
            return main, mask
    return None, None


def _leads_to_product(node: fx.Node, draft: Draft) -> bool:
    while node.target not in _PRODUCTS:
        if node.target in (aten.add.Tensor, aten.masked_fill.Scalar, aten.masked_fill.Tensor, *_scalings()):
            following = node.args[0]
        elif node.target is aten.where.self:
            following = node.args[1]
        else:
            return False
        if not isinstance(following, fx.Node):
            return False
        node = following
    return True


def _scalings() -> tuple[object, ...]:
    return aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar


def _fill(node: fx.Node, draft: Draft) -> tuple[fx.Node, fx.Node, float, bool] | None:
    """Scores, mask, value and whether the mask keeps (else it drops), of a fill with a value that never weighs."""
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        scores, mask, fill, keep = *node.args[:3], False
    elif node.target is aten.where.self:
        mask, scores, fill, keep = *node.args[:3], True
    else:
        return None
    value = draft.number(fill)
    if value is None or value > _NEVER or not isinstance(scores, fx.Node) or not isinstance(mask, fx.Node):
        return None
    return scores, mask, value, keep


def _unfit(scores: _Scores, node: fx.Node, draft: Draft) -> str | None:
    query, keys, values = scores.product.args[0], scores.product.args[1], node.args[1]
    shapes = [draft.shapes(n) for n in (query, keys, values, scores.product)]
    if any(s is None for s in shapes):
        return "shapes are unknown"
    for q, k, v, s in zip(*shapes, strict=True):
        if len(q) < 3 or not len(q) == len(k) == len(v) or not q[:-2] == k[:-2] == v[:-2]:
            return f"operands {q}, {k}, {v} differ in their leading dimensions"
        for mask in (*scores.masks, *(m for m, _, _ in scores.fills)):
            shape = tuple(draft.tensor(mask).shape) if draft.tensor(mask) is not None else None  # type: ignore[union-attr]
            if shape is None or not 2 <= len(shape) <= len(s):
                return f"mask {mask.name} has not 2 to {len(s)} dimensions"
    return _unfit_masks(scores, draft)


def _unfit_masks(scores: _Scores, draft: Draft) -> str | None:
    wanted = draft.tensor(scores.product)
    for mask in scores.masks:
        value = draft.tensor(mask)
        if value is None or wanted is None or value.dtype != wanted.dtype:
            return f"mask {mask.name} has another type than the scores"
    for mask in (*scores.masks, *(m for m, _, _ in scores.fills)):
        for shape, whole in zip(draft.shapes(mask) or [], draft.shapes(scores.product) or [], strict=True):
            if not _broadcasts(shape, whole):
                return f"mask {mask.name} enlarges the scores"
    return None


def _broadcasts(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape broadcasts to the whole without enlarging it."""
    return all(a in (1, b) for a, b in zip(reversed(shape), reversed(whole), strict=False))


def _replace(node: fx.Node, scores: _Scores, draft: Draft) -> None:
    query, factor = _unscaled(scores.product.args[0], draft)
    keys, other = _unscaled(scores.product.args[1], draft)
    keys, values = _transposed(node, keys, draft), node.args[1]
    scale = scores.scale * factor * other
    head = draft.tensor(scores.product.args[0])
    options = {} if head is not None and isclose(scale, head.shape[-1] ** -0.5, rel_tol=1e-12) else {"scale": scale}
    mask = _mask(node, scores, draft)
    call = aten.scaled_dot_product_attention.default
    args = (query, keys, values) if mask is None else (query, keys, values, mask)
    draft.replace(node, draft.before(node, call, *args, **options))


def _unscaled(node: Any, draft: Draft) -> tuple[Any, float]:
    """An operand without the number it was multiplied by."""
    factor = _factor(node, draft) if isinstance(node, fx.Node) else None
    return (node, 1.0) if factor is None else (node.args[0], factor)


def _transposed(node: fx.Node, keys: Any, draft: Draft) -> fx.Node:
    """Keys with their last two axes swapped, without a second swap where there is one already."""
    if keys.target is aten.transpose.int:
        rank = len((draft.shapes(keys) or [()])[0])
        if {d % rank for d in keys.args[1:3]} == {rank - 1, rank - 2}:
            source: fx.Node = keys.args[0]
            return source
    return draft.before(node, aten.transpose.int, keys, -2, -1)


def _mask(node: fx.Node, scores: _Scores, draft: Draft) -> fx.Node | None:
    """One mask of all: boolean where every fill is infinite and nothing is added, else additive."""
    fills = [mask if keep else draft.before(node, aten.logical_not.default, mask) for mask, _, keep in scores.fills]
    if fills and not scores.masks and all(isinf(value) for _, value, _ in scores.fills):
        merged = fills[0]
        for fill in fills[1:]:
            merged = draft.before(node, aten.logical_and.default, merged, fill)
        return merged
    parts = list(scores.masks)
    for fill, (_, value, _) in zip(fills, scores.fills, strict=True):
        zero = draft.constant(node, "attention_zero", torch.zeros(()))
        low = draft.constant(node, "attention_never", torch.tensor(value))
        parts.append(draft.before(node, aten.where.self, fill, zero, low))
    total = None
    for part in parts:
        total = part if total is None else draft.before(node, aten.add.Tensor, total, part)
    return total
