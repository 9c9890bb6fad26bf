"""What a Program becomes before it is exported: int8 weights folded, attention spelled out in plain operators."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from compactor.backends.onnx.origins import ORIGIN
from compactor.ir import graphs
from compactor.ir.graphs import argument, aten
from compactor.ir.program import Program

_TINY = torch.finfo(torch.float32).tiny
_ATTENTION = ("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def prepare(program: Program) -> Program:
    """The same function, in the form that lowers best."""
    graph, _ = graphs.copy_graph(program.graph)
    state = dict(program.state)
    _fold_weights(graph, state)
    _spell_attention(graph, program)
    _keep_padding(graph)
    graphs.eliminate_dead(graph)
    return replace(program, graph=graph, state=state)


def _fold_weights(graph: fx.Graph, state: dict[str, Tensor]) -> None:
    """Weights quantized in the graph become stored integers."""
    for node in list(graph.nodes):
        source = node.args[0] if "quantized_decomposed.quantize_per" in str(node.target) else None
        if not isinstance(source, fx.Node) or source.op != "get_attr":
            continue
        function: Any = node.target
        args, kwargs = graphs.map_nodes((node.args, node.kwargs), lambda n: state[str(n.target)].detach())
        name = f"{source.target}_int8"
        while name in state:
            name += "_"
        state[name] = function(*args, **kwargs)
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(name))
        graph.erase_node(node)


def _spell_attention(graph: fx.Graph, program: Program) -> None:
    """Attention as matmul, mask, softmax, matmul, which runtimes fuse.

    The exporter's own spelling also guards rows whose keys are all hidden, at the price of the fusion; here such rows,
    which carry no information, average all values. Causal and grouped-query calls are left to the exporter.
    """
    values = {n.name: v for n, v in program.values.items()}
    biases: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is not aten.scaled_dot_product_attention.default:
            continue
        mask, _, causal, scale, grouped = (argument(node, 3 + i, name) for i, name in enumerate(_ATTENTION))
        if causal or grouped:
            continue
        like: Tensor = values[node.name]
        first = node.prev
        with graph.inserting_before(node):
            result = _attention(graph, node.args, mask, scale, like, values, biases)
        while (first := first.next) is not node:
            first.meta[ORIGIN] = node.name
        node.replace_all_uses_with(result)
        graph.erase_node(node)


def _keep_padding(graph: fx.Graph) -> None:
    """Zeros around a max pooling become the smallest normal float32.

    ONNX Runtime merges a padding of zeros into the pooling, which then pads with minus infinity: wrong below zero.
    """
    for node in graph.nodes:
        source = node.args[0] if graphs.op_name(node).startswith("max_pool") else None
        if not isinstance(source, fx.Node) or source.target not in (aten.pad.default, aten.constant_pad_nd.default):
            continue
        place = 3 if source.target is aten.pad.default else 2
        mode = argument(source, 2, "mode", "constant") if place == 3 else "constant"
        if mode == "constant" and argument(source, place, "value") in (None, 0):
            source.args = (*source.args[:2], *((mode,) if place == 3 else ()), _TINY)
            source.kwargs = {}


def _attention(
    graph: fx.Graph,
    heads: Any,
    mask: fx.Node | None,
    scale: float | None,
    like: Tensor,
    values: dict[str, Any],
    biases: dict[tuple[fx.Node, torch.dtype], fx.Node],
) -> fx.Node:
    query, key, value = heads[:3]
    factor = scale if scale is not None else values[query.name].shape[-1] ** -0.5
    scores = graph.call_function(aten.matmul.default, (query, graph.call_function(aten.transpose.int, (key, -2, -1))))
    scores = graph.call_function(aten.mul.Tensor, (scores, factor))
    if mask is not None:
        scores = graph.call_function(aten.add.Tensor, (scores, _bias(graph, mask, like.dtype, values, biases)))
    return graph.call_function(aten.matmul.default, (graph.call_function(aten.softmax.int, (scores, -1)), value))


def _bias(
    graph: fx.Graph,
    mask: fx.Node,
    dtype: torch.dtype,
    values: dict[str, Any],
    biases: dict[tuple[fx.Node, torch.dtype], fx.Node],
) -> fx.Node:
    if values[mask.name].dtype != torch.bool:
        return mask
    if (mask, dtype) not in biases:
        after = mask.next
        with graph.inserting_before(after):
            shown, hidden = (
                graph.call_function(aten.full.default, ([], number), {"dtype": dtype})
                for number in (0.0, torch.finfo(dtype).min)
            )
            biases[mask, dtype] = graph.call_function(aten.where.self, (mask, shown, hidden))
    return biases[mask, dtype]
