"""Common sub-expressions: equal pure calls on equal arguments become one (``sym_size`` above all)."""

from typing import Any

import torch
from torch import fx

from compactor.passes.canonicalize.draft import Draft


def merge_duplicates(draft: Draft) -> int:
    """Let repeated calls share the first one."""
    seen: dict[Any, fx.Node] = {}
    count = 0
    for node in list(draft.graph.nodes):
        if node.op != "call_function" or not _is_pure(node):
            continue
        key = (node.target, _freeze(node.args), _freeze(node.kwargs))
        if key in seen:
            draft.replace(node, seen[key])
            count += 1
        else:
            seen[key] = node
    return count


def _is_pure(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return not node.target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in node.target.tags


def _freeze(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(v) for v in value)
    if isinstance(value, dict):
        return tuple(sorted((k, _freeze(v)) for k, v in value.items()))
    if isinstance(value, slice):
        return ("slice", _freeze(value.start), _freeze(value.stop), _freeze(value.step))
    # 1, 1.0 and True are equal and hash alike, but are different arguments.
    return value if isinstance(value, fx.Node) else (type(value).__name__, value)
