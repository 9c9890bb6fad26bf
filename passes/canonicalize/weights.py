"""Weights that are computed from other tensors alone (weight norm, weight standardization) become stored ones."""

from typing import Any

import torch
from torch import fx

from compactor.ir.graphs import aten
from compactor.passes.canonicalize.constants import compute, is_repeatable
from compactor.passes.canonicalize.draft import Draft

_WEIGHED = {
    aten.linear.default,
    *(getattr(getattr(aten, f"conv{n}d"), name) for n in (1, 2, 3) for name in ("default", "padding")),
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}


def store_weights(draft: Draft) -> int:
    """Evaluate the computation of a weight whose tensors nothing else reads; training goes on with the result."""
    count = 0
    for node in list(draft.graph.nodes):
        if node.target not in _WEIGHED or not isinstance(node.args[1], fx.Node):
            continue
        weight = node.args[1]
        sources = _computation(weight)
        if weight.op != "call_function" or sources is None:
            continue
        first = next((n for n in sources if n.op == "get_attr" and n.target in draft.trainable), None)
        if first is not None:
            value = _evaluate(sources, draft).detach().clone().contiguous()
            stored = draft.constant(weight, f"{first.target}_computed", value, trainable=True)
            weight.replace_all_uses_with(stored)
            count += 1
    return count


def _computation(weight: fx.Node) -> list[fx.Node] | None:
    """All nodes that a weight is computed from, in order; None where an input or another reader is involved."""
    nodes, stack = {weight}, [weight]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in nodes:
                nodes.add(source)
                stack.append(source)
    if any(user not in nodes for node in nodes if node is not weight for user in node.users):
        return None
    fixed = all(n.op == "get_attr" or is_repeatable(n.target) for n in nodes)
    return [n for n in weight.graph.nodes if n in nodes] if fixed else None


def _evaluate(nodes: list[fx.Node], draft: Draft) -> torch.Tensor:
    known: dict[fx.Node, Any] = {}
    for node in nodes:
        known[node] = draft.state[str(node.target)] if node.op == "get_attr" else compute(node, known)
    result: torch.Tensor = known[nodes[-1]]
    return result
