"""`Cast`: the whole Program in float16 or bfloat16."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx

from compactor.errors import UsageError
from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult

_WIDE = (torch.float32, torch.float64)


class CastConfig(PassConfig):
    """Options of `quantize.cast`: the type that everything is stored and computed in."""

    dtype: Literal["bfloat16", "float16"] = "bfloat16"


class Cast(Pass):
    """Weights and arithmetic in 16 bits; float inputs are cast on entry, outputs back to float32."""

    name: ClassVar[str] = "quantize.cast"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "batchnorm_folded"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "fold_batchnorm", "search.uniform", "distill.logits")
    Config: ClassVar[type[PassConfig]] = CastConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Cast. Raises `UsageError` for a Program that is not float32."""
        result, clamped = cast_program(program, self.config.dtype)
        return PassResult(result, True, {"dtype": self.config.dtype, "clamped": clamped})


def cast_program(program: Program, precision: str) -> tuple[Program, int]:
    """The Program in ``precision``, and how many of its finite values were too large and became the largest."""
    if program.precision != "float32":
        raise UsageError(f"the model is {program.precision} already", f"cast a float32 model to {precision}, once")
    dtype: torch.dtype = getattr(torch, precision)
    values = {node.name: value for node, value in program.values.items()}
    graph, _ = graphs.copy_graph(program.graph)
    for node in list(graph.nodes):
        if node.op == "call_function" and _is_wide(values.get(node.name)):
            _narrow(node, values, dtype)
    _cast_inputs(graph, values, dtype)
    _cast_outputs(graph, values)
    state, clamped = {}, 0
    for name, tensor in program.state.items():
        state[name], over = _cast_tensor(tensor, dtype)
        clamped += over
    return program.evolve(graph=graph, state=state, precision=precision), clamped


def _is_wide(value: Any) -> bool:
    """Whether a fake value is, or (for a split) holds, a wide float tensor."""
    if isinstance(value, (tuple, list)):
        return any(map(_is_wide, value))
    return isinstance(value, Tensor) and value.dtype in _WIDE


def _cast_tensor(tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    if tensor.dtype not in _WIDE:
        return tensor, 0
    limit = torch.finfo(dtype).max
    over = torch.isfinite(tensor) & (tensor.abs() > limit)
    return torch.where(over, tensor.clamp(-limit, limit), tensor).to(dtype), int(over.sum())


def _narrow(node: fx.Node, values: dict[str, Any], dtype: torch.dtype) -> None:
    """Let a call that makes wide floats make ``dtype`` ones."""
    limit = torch.finfo(dtype).max

    def convert(value: Any) -> Any:
        if value in _WIDE and isinstance(value, torch.dtype):
            return dtype
        finite = isinstance(value, float) and abs(value) != float("inf")
        return max(-limit, min(limit, value)) if finite else value

    typed = any(isinstance(a, torch.dtype) for a in (*node.args, *node.kwargs.values()))
    node.args, node.kwargs = fx.node.map_aggregate((node.args, node.kwargs), convert)
    follows = any(_is_wide(values.get(n.name)) for n in node.all_input_nodes)
    if not (typed or follows):
        _insert_cast(node, dtype)


def _insert_cast(node: fx.Node, dtype: torch.dtype) -> None:
    with node.graph.inserting_after(node):
        cast = node.graph.call_function(aten.to.dtype, (node, dtype))
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def _cast_inputs(graph: fx.Graph, values: dict[str, Any], dtype: torch.dtype) -> None:
    """Casts stand behind the sizes of the inputs, where exporting again leaves them."""
    inputs = graphs.placeholders(graph)
    head = next(n for n in graph.nodes if n.op not in ("placeholder", "get_attr") and not _is_size(n))
    for node in inputs:
        if not _is_wide(values.get(node.name)):
            continue
        with graph.inserting_before(head):
            cast = graph.call_function(aten.to.dtype, (node, dtype))
        readers = {user for user in node.users if user is not cast and not _is_size(user)}
        node.replace_all_uses_with(cast, delete_user_cb=readers.__contains__)


def _is_size(node: fx.Node) -> bool:
    return node.target is aten.sym_size.int and node.args[0].op == "placeholder"  # type: ignore[union-attr]


def _cast_outputs(graph: fx.Graph, values: dict[str, Any]) -> None:
    output = graphs.output_node(graph)
    nodes: tuple[fx.Node, ...] = output.args[0]  # type: ignore[assignment]
    with graph.inserting_before(output):
        results = tuple(
            graph.call_function(aten.to.dtype, (node, torch.float32)) if _is_wide(values.get(node.name)) else node
            for node in nodes
        )
    output.args = (results,)
