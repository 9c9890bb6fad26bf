"""Matrix products with a stored weight become ``linear``, without the views that flatten its input."""

from typing import Any

from torch import fx

from compactor.ir.graphs import argument, aten
from compactor.passes.canonicalize.draft import Draft

_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_TRANSPOSES = (aten.t.default, aten.transpose.int, aten.permute.default)


def recognise_linears(draft: Draft) -> int:
    """``addmm(b, x, W)`` and ``matmul(x, W)`` become ``linear(x, Wᵀ, b)``; W is stored transposed."""
    count = 0
    for node in list(draft.graph.nodes):
        parts = _product(node)
        if parts is None or draft.value(node) is None:
            continue
        bias, source, weight = parts
        stored = _stored_transpose(weight, node, draft)
        if stored is None:
            continue
        draft.replace(node, draft.before(node, aten.linear.default, source, stored, bias))
        count += 1
    return count


def unflatten_linears(draft: Draft) -> int:
    """``view(linear(view(x, (-1, k))), (*x.shape[:-1], n))`` becomes ``linear(x)``."""
    count = 0
    for node in list(draft.graph.nodes):
        if node.target is not aten.linear.default or node.args[0].target not in _VIEWS:
            continue
        source = node.args[0].args[0]
        before, flat, after = draft.shapes(source), draft.shapes(node.args[0]), draft.shapes(node)
        if before is None or flat is None or after is None or [s[-1:] for s in before] != [s[-1:] for s in flat]:
            continue
        wanted = [(*s[:-1], f[-1]) for s, f in zip(before, after, strict=True)]
        views = list(node.users)
        if not views or any(v.target not in _VIEWS or draft.shapes(v) != wanted for v in views):
            continue
        whole = draft.before(node, aten.linear.default, source, *node.args[1:])
        for view in views:
            draft.replace(view, whole)
        count += 1
    return count


def _product(node: fx.Node) -> tuple[Any, fx.Node, fx.Node] | None:
    """Bias, input and (in, out) weight of a product, if it is one."""
    if node.target is aten.addmm.default:
        plain = argument(node, 3, "beta", 1) == 1 and argument(node, 4, "alpha", 1) == 1
        bias, source, weight = node.args[:3]
        return (bias, source, weight) if plain and bias.op == "get_attr" else None  # type: ignore[union-attr, return-value]
    if node.target in (aten.mm.default, aten.matmul.default):
        return None, node.args[0], node.args[1]  # type: ignore[return-value]
    return None


def _stored_transpose(weight: fx.Node, node: fx.Node, draft: Draft) -> fx.Node | None:
    """A node that reads the (out, in) weight, or None with the reason noted."""
    value = draft.tensor(weight)
    if value is None or value.dim() != 2:
        return None
    if weight.target in _TRANSPOSES:
        source = weight.args[0]
        return source if isinstance(source, fx.Node) and source.op == "get_attr" and _swaps(weight) else None
    if weight.op != "get_attr":
        return None
    name = str(weight.target)
    if len(weight.users) > 1:
        draft.skip(node, f"weight {name} is shared, so it cannot be stored transposed")
        return None
    draft.state[name] = draft.state[name].t().contiguous()
    return weight


def _swaps(node: fx.Node) -> bool:
    if node.target is aten.t.default:
        return True
    if node.target is aten.permute.default:
        return [d % 2 for d in node.args[1]] == [1, 0]  # type: ignore[union-attr, operator]
    return node.args[1] % 2 != node.args[2] % 2  # type: ignore[operator]
