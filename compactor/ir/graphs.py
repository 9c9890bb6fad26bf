"""Small utilities on `torch.fx` graphs, shared by the whole IR."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten


def copy_graph(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A structural copy, and the map from old nodes to new ones; ``meta`` is left behind."""
    new = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        mapping[node] = new.node_copy(node, lambda n: mapping[n])
        mapping[node].meta = {}
    return new, mapping


def graph_module(graph: fx.Graph, state: Mapping[str, Tensor], trainable: Iterable[str] = ()) -> fx.GraphModule:
    """A runnable module over this graph. Tensors are shared, not copied; ``trainable`` ones become Parameters."""
    return fx.GraphModule(tensors_of(graph, state, trainable), graph)


def tensors_of(graph: fx.Graph, state: Mapping[str, Tensor], trainable: Iterable[str] = ()) -> nn.Module:
    """A module that holds what this graph reads: all that an `fx.Interpreter` needs, without compiling the graph."""
    root = nn.Module()
    wanted = set(trainable)
    for name in dict.fromkeys(str(n.target) for n in graph.nodes if n.op == "get_attr"):
        *path, leaf = name.split(".")
        owner = root
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        tensor = state[name]
        if name in wanted:
            owner.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
        else:
            owner.register_buffer(leaf, tensor)
    return root


def output_node(graph: fx.Graph) -> fx.Node:
    """The graph's output node."""
    node: fx.Node = next(n for n in reversed(graph.nodes) if n.op == "output")
    return node


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    """The graph's input nodes, in order."""
    return [n for n in graph.nodes if n.op == "placeholder"]


def used_state(graph: fx.Graph) -> list[str]:
    """Names of the tensors that the graph reads, in order of first use."""
    return list(dict.fromkeys(str(n.target) for n in graph.nodes if n.op == "get_attr"))


def eliminate_dead(graph: fx.Graph) -> None:
    """Remove nodes without users, inputs and output kept (ATen calls here are pure, asserts are already gone)."""
    graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))


def arguments(node: fx.Node) -> tuple[Any, ...]:
    """The positional arguments of a call, untyped."""
    return node.args


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An argument of an ATen call, however it was passed."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def set_argument(node: fx.Node, index: int, name: str, value: Any) -> None:
    """Set an argument of an ATen call where it stands, positional or keyword."""
    if len(node.args) > index:
        node.update_arg(index, value)
    else:
        node.update_kwarg(name, value)


def plain_arguments(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call without those at the end that repeat the op's defaults, as `torch.export` writes them."""
    args, kwargs = list(node.args), dict(node.kwargs)
    if isinstance(node.target, torch._ops.OpOverload):
        schema = node.target._schema.arguments
        defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
        kwargs = {k: v for k, v in kwargs.items() if k not in defaults or not _equal(v, defaults[k])}
        while (
            args and schema[len(args) - 1].name in defaults and _equal(args[-1], defaults[schema[len(args) - 1].name])
        ):
            args.pop()
    return tuple(args), kwargs


def _equal(value: Any, default: Any) -> bool:
    if isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        return list(value) == list(default)
    return type(value) is type(default) and bool(value == default)


def map_nodes(value: Any, convert: Callable[[fx.Node], Any]) -> Any:
    """``value`` with every node inside replaced."""
    return fx.node.map_arg(value, convert)


def op_name(node: fx.Node) -> str:
    """``add`` for ``aten.add.Tensor``, ``namespace.op`` for other namespaces, the function's name otherwise."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        namespace, name = target._schema.name.split("::")
        return name if namespace == "aten" else f"{namespace}.{name}"
    return getattr(target, "__name__", str(target))


def groups_of(node: fx.Node) -> int:
    """The groups of a convolution."""
    return int(argument(node, groups_place(node), "groups", 1))


def groups_place(node: fx.Node) -> int:
    """Which argument of a convolution holds its groups."""
    return [a.name for a in node.target._schema.arguments].index("groups")  # type: ignore[union-attr]
