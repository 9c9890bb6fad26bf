"""In-place calls become their pure twins, where nothing else sees the memory they write."""

from typing import Any

import torch
from torch import fx

from compactor.errors import UnsupportedError
from compactor.ir.graphs import aten
from compactor.passes.canonicalize.draft import Draft


def remove_inplace(draft: Draft) -> int:
    """``relu_(x)`` becomes ``relu(x)``; later readers of ``x`` read the result.

    Raises `UnsupportedError` when a view of ``x`` is involved: the pure twin would then compute something else.
    """
    count = 0
    for node in list(draft.graph.nodes):
        if not _is_inplace(node):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or _seen_elsewhere(source, node):
            raise UnsupportedError(
                f"node {node.name} ({node.target}) changes a tensor in place through a view",
                "export with torch.export.export(...).run_decompositions({}), which makes in-place code functional",
            )
        node.target = _twin(node)
        _redirect_later(source, node)
        count += 1
    return count


def _is_inplace(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _twin(node: fx.Node) -> Any:
    namespace, _, name = str(node.target._schema.name).partition("::")  # type: ignore[union-attr]
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    overload = str(node.target._overloadname)  # type: ignore[union-attr]
    if not name.endswith("_") or packet is None or not hasattr(packet, overload):
        raise UnsupportedError(f"node {node.name} ({node.target}) has side effects", "export a model without them")
    return getattr(packet, overload)


def _seen_elsewhere(source: fx.Node, node: fx.Node) -> bool:
    """Whether what ``node`` writes is read later under another name than ``source`` or its own."""
    root = source
    while _is_view(root):
        if not root.all_input_nodes:
            return True
        root = root.all_input_nodes[0]
    if root.op in ("placeholder", "get_attr"):
        return True
    aliases = [root]
    for alias in aliases:
        aliases.extend(user for user in alias.users if user is not node and (_is_view(user) or _is_inplace(user)))
    later = _after(node)
    return any(user in later for alias in aliases if alias is not source for user in alias.users)


def _is_view(node: fx.Node) -> bool:
    """Whether the call may return memory of its input."""
    if node.target in (aten.reshape.default, aten.contiguous.default, aten.flatten.using_ints):
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.op == "call_function"
    return not schema.is_mutable and any(r.alias_info is not None for r in schema.returns)


def _redirect_later(source: fx.Node, node: fx.Node) -> None:
    later = _after(node)
    source.replace_all_uses_with(node, delete_user_cb=lambda user: user in later)


def _after(node: fx.Node) -> set[fx.Node]:
    later = set()
    following = node.next
    while following.op != "root":
        later.add(following)
        following = following.next
    return later
