"""Small sub-graphs that read no input become one stored tensor each."""

from typing import Any

import torch
from torch import Tensor, fx

from compactor.passes.canonicalize.draft import Draft

LIMIT = 4096
"""Largest number of elements stored; larger ones stay computed, so that archives do not grow."""


def fold_constants(draft: Draft) -> int:
    """Compute what depends on fixed tensors and literals only.

    Trainable tensors stay where they are used, and sizes that follow an input never count as fixed. Stored results
    keep their axes, so slicing still reaches them.
    """
    known: dict[fx.Node, Any] = {}
    for node in draft.graph.nodes:
        if node.op == "get_attr" and node.target not in draft.trainable:
            known[node] = draft.state[str(node.target)]
        elif _is_foldable(node, known, draft):
            known[node] = compute(node, known)
    count = 0
    for node in list(draft.graph.nodes):
        if node in known and node.op != "get_attr" and isinstance(known[node], Tensor) and _is_boundary(node, known):
            fixed = known[node].detach().clone().contiguous()
            draft.replace(node, draft.constant(node, f"{node.name}_value", fixed))
            count += 1
    return count


def _is_foldable(node: fx.Node, known: dict[fx.Node, Any], draft: Draft) -> bool:
    if node.op != "call_function" or not all(n in known for n in node.all_input_nodes):
        return False
    value = draft.tensor(node)
    return is_repeatable(node.target) and value is not None and value.numel() <= LIMIT


def _is_boundary(node: fx.Node, known: dict[fx.Node, Any]) -> bool:
    return any(user not in known for user in node.users)


def is_repeatable(operation: object) -> bool:
    """Whether an op gives the same result every time, changes nothing, and is no quantizer (those stay visible)."""
    if not isinstance(operation, torch._ops.OpOverload):
        return False
    random = torch.Tag.nondeterministic_seeded in operation.tags
    return not random and not operation._schema.is_mutable and "quantized" not in operation.namespace


def compute(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """What a call gives, its sources being known."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]
