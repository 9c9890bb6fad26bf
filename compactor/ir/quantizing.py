"""Taking the quantizers out of a graph, and putting a plan's quantizers in."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, fx

from compactor.errors import UnsupportedError, UsageError
from compactor.ir import graphs
from compactor.ir.program import Program
from compactor.ir.quantized import is_dequantize, is_quantize, ops
from compactor.ir.quantplan import Edge, Quantizer, QuantPlan


def leaves(node: fx.Node) -> list[fx.Node]:
    """The nodes among the arguments, in order; one that stands twice is there twice."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n) or n)  # type: ignore[func-returns-value]
    return found


def put(node: fx.Node, place: int, value: fx.Node) -> None:
    """Let a node read ``value`` in the place of the ``place``-th of its `leaves`."""
    number = count()
    args: Any = fx.node.map_arg((node.args, node.kwargs), lambda n: value if next(number) == place else n)
    node.args, node.kwargs = args


def split(program: Program) -> tuple[Program, QuantPlan]:
    """The Program with exact values where quantizers were, and the plan that puts them back.

    Stored integers become the floats they stand for; weights that the graph itself quantizes keep all their digits.
    Raises `UnsupportedError` for integers that are more than stored and turned back.
    """
    graph, _ = graphs.copy_graph(program.graph)
    state, found = dict(program.state), dict[Any, Quantizer]()
    with torch.no_grad():
        for node in [n for n in graph.nodes if is_dequantize(n) and n.users]:
            source, quantizer = _taken(node, state)
            key = quantizer.key()
            known = found.get(key, replace(quantizer, edges=()))
            edges = tuple(
                Edge(u.name, i, graphs.op_name(u)) for u in node.users for i, n in enumerate(leaves(u)) if n is node
            )
            found[key] = replace(known, edges=known.edges + edges)
            node.replace_all_uses_with(source)
    graphs.eliminate_dead(graph)
    order = {n.name: i for i, n in enumerate(graph.nodes)}
    plan = [replace(q, edges=tuple(sorted(q.edges, key=lambda e: (order[e.node], e.place)))) for q in found.values()]
    plan.sort(key=lambda q: (order[q.edges[0].node], q.edges[0].place))
    exact = program.evolve(graph=graph, state=state, precision="float32") if plan else program
    return exact, QuantPlan(tuple(plan))


def _taken(node: fx.Node, state: dict[str, Tensor]) -> tuple[fx.Node, Quantizer]:
    """What a dequantizer rounds, as it was before, and how; a stored weight in ``state`` becomes float."""
    inner: Any = node.args[0]
    quantize = inner if is_quantize(inner) else node
    source: Any = quantize.args[0]
    if not is_quantize(inner) and inner.op != "get_attr":
        raise UnsupportedError(
            f"{node.name} dequantizes {inner.name}, which computes with integers", "report this model"
        )
    values: list[Any] = [state[str(a.target)] if isinstance(a, fx.Node) else a for a in quantize.args[1:]]
    weight = source.op == "get_attr"
    if quantize is node and not state[str(inner.target)].is_floating_point():
        function: Any = node.target
        state[str(inner.target)] = function(state[str(inner.target)], *values)
    channels = len(values) == 6
    scale, zero_point, (low, high, dtype) = values[0], values[1], values[-3:]
    return source, Quantizer(
        str(source.target) if weight else source.name, weight, (),
        torch.as_tensor(scale, dtype=torch.float32), torch.as_tensor(zero_point, dtype=torch.int64),
        low, high, dtype, values[2] if channels else None,
    )  # fmt: skip


def quantized(program: Program, plan: QuantPlan) -> Program:
    """The int8 Program: the plan's quantizers at their edges, weights stored as integers.

    Raises `UsageError` for a plan of another Program.
    """
    return _Insertion(program, plan).run()


class _Insertion:
    """One graph that gets its quantizers."""

    def __init__(self, program: Program, plan: QuantPlan) -> None:
        self.program, self.plan = program, plan
        self.graph, _ = graphs.copy_graph(program.graph)
        self.state = dict(program.state)
        self.readers = edges_of(self.graph, plan)
        self.order = {node: i for i, node in enumerate(self.graph.nodes)}

    def run(self) -> Program:
        with torch.no_grad():
            for quantizer, readers in zip(self.plan, self.readers, strict=True):
                first = min((node for node, _ in readers), key=self.order.__getitem__)
                with self.graph.inserting_before(first):
                    value = self._weight(quantizer) if quantizer.weight else self._activation(quantizer, readers[0])
                for node, place in readers:
                    put(node, place, value)
        graphs.eliminate_dead(self.graph)
        trainable = frozenset(name for name in self.program.trainable if name in self.state)
        precision = "int8" if len(self.plan) else self.program.precision
        return self.program.evolve(graph=self.graph, state=self.state, trainable=trainable, precision=precision)

    def _activation(self, q: Quantizer, reader: tuple[fx.Node, int]) -> fx.Node:
        if q.axis is not None:
            raise UnsupportedError(f"the activation {q.source} has a scale per channel", "give it one scale")
        source = leaves(reader[0])[reader[1]]
        rest = (float(q.scale), int(q.zero_point), q.low, q.high, q.dtype)
        small = self.graph.call_function(ops.quantize_per_tensor.default, (source, *rest))
        return self.graph.call_function(ops.dequantize_per_tensor.default, (small, *rest))

    def _weight(self, q: Quantizer) -> fx.Node:
        exact = self.program.state[q.source]
        rest = (q.low, q.high, q.dtype)
        if q.axis is None:
            given: tuple[Any, ...] = (float(q.scale), int(q.zero_point), *rest)
            stored = ops.quantize_per_tensor.default(exact, *given)
            name = self._stored_name(q)
            return self.graph.call_function(ops.dequantize_per_tensor.default, (self._stored(name, stored), *given))
        stored = ops.quantize_per_channel.default(exact, q.scale, q.zero_point, q.axis, *rest)
        name = self._stored_name(q)
        numbers = (("scale", q.scale), ("zero_point", q.zero_point))
        own = [self._stored(self._fresh(f"{name}_{what}"), tensor) for what, tensor in numbers]
        args: tuple[Any, ...] = (self._stored(name, stored), *own, q.axis, *rest)
        return self.graph.call_function(ops.dequantize_per_channel.default, args)

    def _stored_name(self, q: Quantizer) -> str:
        """The weight's own name where no one reads the exact values."""
        reads = {(e.node, e.place) for e in q.edges}
        users = [u for n in self.program.graph.nodes if n.op == "get_attr" and n.target == q.source for u in n.users]
        whole = all((u.name, i) in reads for u in users for i, n in enumerate(leaves(u)) if n.target == q.source)
        return q.source if whole else self._fresh(f"{q.source}_int8")

    def _stored(self, name: str, tensor: Tensor) -> fx.Node:
        self.state[name] = tensor.contiguous()
        return self.graph.get_attr(name)

    def _fresh(self, name: str) -> str:
        return next(n for n in chain([name], (f"{name}_{i}" for i in count(1))) if n not in self.state)


def edges_of(graph: fx.Graph, plan: QuantPlan) -> list[list[tuple[fx.Node, int]]]:
    """For every quantizer, who reads its value in a graph, and where. Raises `UsageError` for another graph."""
    nodes: Mapping[str, fx.Node] = {n.name: n for n in graph.nodes}
    found = []
    for quantizer in plan:
        found.append([(nodes.get(e.node), e.place) for e in quantizer.edges])
        for node, place in found[-1]:
            held = leaves(node)[place : place + 1] if node is not None else []
            if not held or (str(held[0].target) if quantizer.weight else held[0].name) != quantizer.source:
                raise UsageError(
                    f"the plan quantizes {quantizer.source}, which this model does not read there",
                    "apply a plan to the model it was made for, or one with the same nodes",
                )
    return found  # type: ignore[return-value]
