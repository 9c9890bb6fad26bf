"""`WeightOnly`: the weights of linear layers in 4 or 8 bits, everything else as it is."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import fx

from compactor.budget import Budget
from compactor.errors import UnsupportedError, UsageError
from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized
from compactor.ir.quantplan import Edge, Quantizer, QuantPlan, QuantRules
from compactor.passes.quantize.grids import fitted_weights
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.pipeline.request import backend_of
from compactor.target import Target


class WeightsConfig(PassConfig):
    """Options of `quantize.weights`.

    ``group``: input channels that share a scale; 0: all of an output channel, as where a layer's inputs are no multiple
    of the group.
    """

    bits: Literal[8, 4] = Field(default=4, description="of weights")
    group: Literal[0, 16, 32, 64, 128, 256] = Field(default=64, description="input channels that share a scale")


class WeightOnly(Pass):
    """Store the weights of linear layers in few bits, symmetric; activations and arithmetic stay as they are.

    It saves memory, and time where reading weights takes it: large layers at batch 1. Each group has the scale of the
    least squared error. Metrics: ``weights``, ``bits``, ``grouped`` (how many have a scale per group), ``error``
    (squared error over squared weights).
    """

    name: ClassVar[str] = "quantize.weights"
    version: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "search", "prune", "distill", "fold_batchnorm")
    Config: ClassVar[type[PassConfig]] = WeightsConfig

    def refuses(self, program: Program, target: Target, budget: Budget) -> list[str]:
        """Runtimes without such kernels, and models without linear layers."""
        missing = [] if _linears(program) else ["the model has no linear layer"]
        return _obstacles(backend_of(target).rules, self.config.bits) + missing

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Store. Raises `UsageError` for a Program that is not float32, `UnsupportedError` for a runtime without it."""
        if program.precision != "float32":
            raise UsageError(f"the model is {program.precision} already", "store the weights of a float32 model")
        obstacles = _obstacles(ctx.backend.rules, self.config.bits)
        if obstacles:
            raise UnsupportedError(obstacles[0], "quantize with quantize.fastest, or choose another target")
        grouped, plan = _grouped(program, self.config.group)
        if self.config.bits < 8:
            plan = fitted_weights(grouped, plan, self.config.bits)
        made = quantized(grouped, plan).evolve(precision=program.precision)
        split = sum(q.edges[0].op == "view" for q in plan)
        facts = {"weights": len(plan), "bits": self.config.bits, "grouped": split, "error": _error(grouped, plan)}
        return PassResult(made, True, facts)


def _obstacles(rules: QuantRules, bits: int) -> list[str]:
    known = ", ".join(map(str, rules.weight_bits)) or "none"
    reason = f"{rules.runtime} has no kernels here for weights of {bits} bits beside float activations, only: {known}"
    return [] if bits in rules.weight_bits else [reason]


def _linears(program: Program) -> list[tuple[fx.Node, str]]:
    """Linear layers whose weight is a matrix of the state, and its name there."""
    found = []
    for node in program.graph.nodes:
        weight = node.args[1] if node.target is aten.linear.default else None
        if isinstance(weight, fx.Node) and weight.op == "get_attr" and program.state[str(weight.target)].dim() == 2:
            found.append((node, str(weight.target)))
    return found


def _grouped(program: Program, group: int) -> tuple[Program, QuantPlan]:
    """The Program with weights stored a row per group of columns, and views on them; and a plan of 8 bits for all."""
    graph, mapping = graphs.copy_graph(program.graph)
    state = dict(program.state)
    readers: dict[str, list[fx.Node]] = {}
    for node, name in _linears(program):
        readers.setdefault(name, []).append(mapping[node])
    plan, order = [], {n: i for i, n in enumerate(graph.nodes)}
    for name, nodes in readers.items():
        rows, columns = state[name].shape
        edges = [(n, 1) for n in nodes]
        if group and columns % group == 0 and columns > group:
            first = min(nodes, key=order.__getitem__)
            name = _rows_of_groups(graph, state, name, nodes, group)
            with graph.inserting_before(first):
                view = graph.call_function(aten.view.default, (graph.get_attr(name), [rows, columns]))
            for node in nodes:
                node.update_arg(1, view)
            edges = [(view, 0)]
        plan.append(_quantizer(name, state[name], edges))
    graphs.eliminate_dead(graph)
    return program.evolve(graph=graph, state=state), QuantPlan(tuple(plan))


def _rows_of_groups(
    graph: fx.Graph, state: dict[str, torch.Tensor], name: str, nodes: Sequence[fx.Node], group: int
) -> str:
    """The name of the weight as a row per group: a copy where others, such as an embedding, read it too."""
    others = [u for n in graph.nodes if n.op == "get_attr" and n.target == name for u in n.users if u not in nodes]
    own = name if not others else f"{name}_groups"
    state[own] = state[name].reshape(-1, group)
    return own


def _quantizer(name: str, weight: torch.Tensor, edges: Sequence[tuple[fx.Node, int]]) -> Quantizer:
    scale = weight.float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * 127) / 127
    readers = tuple(Edge(node.name, place, graphs.op_name(node)) for node, place in edges)
    return Quantizer(name, True, readers, scale, torch.zeros(len(scale), dtype=torch.int64), -127, 127, axis=0)


def _error(program: Program, plan: QuantPlan) -> float:
    """Squared error of all weights over their squared size."""
    lost = whole = 0.0
    for q in plan:
        weight, scale = program.state[q.source].float(), q.scale[:, None]
        rounded = (weight / scale).round().clamp(q.low, q.high) * scale
        lost, whole = lost + float((rounded - weight).square().sum()), whole + float(weight.square().sum())
    return round(lost / whole, 8) if whole else 0.0
