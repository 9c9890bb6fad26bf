"""Relation losses on two networks: on queries, keys and values of the last attention, else on the last feature map."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, fx

from compactor.ir import graphs
from compactor.ir.graphs import op_name
from compactor.ir.program import Program
from compactor.training import losses

Named = Mapping[str, Tensor]

ATTENTION = ("tap:query", "tap:key", "tap:value")
MASK = "tap:mask"
FEATURES = "tap:features"

_HIDDEN = -1e3  # additive masks hold less than this, relative position biases do not


def tapped(program: Program) -> Program:
    """The Program with what relation losses compare as further outputs, under the names of this module.

    Of the last attention (N, heads, T, width each, and its mask where it has one). Where there is none: the last
    feature map (N, C, H, W), or what goes into the last linear layer.
    """
    return exposed(program, compared(program))


def exposed(program: Program, nodes: Mapping[str, fx.Node]) -> Program:
    """The Program with these nodes of its graph as further outputs."""
    graph, mapping = graphs.copy_graph(program.graph)
    output = graphs.output_node(graph)
    output.update_arg(0, (*output.args[0], *(mapping[node] for node in nodes.values())))  # type: ignore[misc]
    return program.evolve(graph=graph, outputs=(*program.outputs, *nodes))


def visible(mask: Tensor) -> Tensor:
    """(N or 1, T): keys that some query may attend to; ``mask``, boolean or additive, fits (N, heads, T, T)."""
    seen = mask if mask.dtype == torch.bool else mask > _HIDDEN
    return seen.reshape(*(1,) * (4 - mask.dim()), *mask.shape).flatten(1, 2).any(1)


def relation(found: Named, goal: Named, *, heads: int = 12, softmax: bool = True) -> Tensor:
    """How far the relations of a student are from its teacher's, both `tapped`; zero where they share no tap."""
    if all(name in goal and name in found for name in ATTENTION):
        valid = visible(goal[MASK]) if MASK in goal else None
        ours, theirs = ([side[name] for name in ATTENTION] for side in (found, goal))
        return losses.attention_relation(ours, theirs, valid, heads=heads, softmax=softmax)
    if FEATURES in goal and FEATURES in found:
        return losses.feature_relation(found[FEATURES], goal[FEATURES])
    return next(iter(found.values())).new_zeros(())


def compared(program: Program) -> dict[str, fx.Node]:
    """What `tapped` adds, as nodes of the Program's own graph."""
    calls = [n for n in program.graph.nodes if n.op == "call_function" and isinstance(program.values[n], Tensor)]
    attention = [n for n in calls if op_name(n) == "scaled_dot_product_attention" and program.values[n].dim() == 4]
    if attention:
        names = zip(ATTENTION, ("query", "key", "value"), strict=True)
        found = {tap: graphs.argument(attention[-1], i, name) for i, (tap, name) in enumerate(names)}
        mask = graphs.argument(attention[-1], 3, "attn_mask")
        return {**found, MASK: mask} if isinstance(mask, fx.Node) else found
    maps = [n for n in calls if program.values[n].dim() == 4 and math.prod(program.values[n].shape[2:]) > 1]
    linear = [n.all_input_nodes[0] for n in calls if op_name(n) == "linear"]
    last = (maps or linear)[-1:]
    return {FEATURES: last[0]} if last else {}
