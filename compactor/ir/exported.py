"""Between `torch.export.ExportedProgram` and `Program`."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator
from torch.export import Dim, ExportedProgram

from compactor.errors import InputError, UnsupportedError
from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import DynamicDim, InputSpec, Program

_DROPPED = {
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
    torch._check,
}
_UNBOUNDED = 4096


def from_exported(exported: ExportedProgram, meta: Mapping[str, Any] | None = None) -> Program:
    """The Program of an exported one: flat inputs, guards and asserts gone, sub-graphs inlined, tied weights joined.

    Raises `UnsupportedError` for an input that is not a tensor, or a sub-graph with control flow.
    """
    if _writes_unseen(exported):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its tree specifications
            exported = exported.run_decompositions({})
    module = exported.module(check_guards=False)
    state = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    graph = _inlined(module, state)
    _join_tied(graph, state)
    _drop_asserts(graph)
    inputs = _input_specs(exported)
    _hoist_sizes(graph, inputs)
    graphs.eliminate_dead(graph)
    output = graphs.output_node(graph)
    flat = [a for a in _flatten(output.args[0]) if a is not None]
    if any(not isinstance(a, fx.Node) for a in flat):
        raise UnsupportedError("the model returns something that is not a tensor", "return tensors only")
    output.args = (tuple(flat),)
    return Program(
        graph=graph,
        state={k: v.detach() for k, v in state.items()},
        trainable=frozenset(k for k, _ in module.named_parameters(remove_duplicate=False)),
        inputs=inputs,
        outputs=tuple(f"output_{i}" for i in range(len(flat))),
        meta=dict(meta or {}),
    )


def to_exported(program: Program, *, batch: int | None = None) -> ExportedProgram:
    """The ExportedProgram of a Program; with ``batch``, all shapes are static at the nominal ones."""
    module = graphs.graph_module(graphs.copy_graph(program.graph)[0], _compact(program.state), program.trainable).eval()
    if batch is not None:
        return torch.export.export(module, program.example_inputs(batch))
    dims: dict[str, Any] = {}
    for spec in program.inputs:
        for dim in spec.dynamic.values():
            dims.setdefault(dim.name, Dim(dim.name, min=dim.low, max=dim.high))
    shapes = tuple({i: dims[d.name] for i, d in spec.dynamic.items()} for spec in program.inputs)
    # Specialising on a batch of one would make it static.
    return torch.export.export(module, program.example_inputs(2), dynamic_shapes=shapes)


def _compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor contiguous over a storage of its own size: archives hold whole storages, views of them included."""
    seen: set[int] = set()
    result = {}
    for name, tensor in state.items():
        dense = tensor.detach().contiguous()
        storage = dense.untyped_storage()
        if storage.nbytes() != dense.numel() * dense.element_size() or storage.data_ptr() in seen:
            dense = dense.clone()
        seen.add(dense.untyped_storage().data_ptr())
        result[name] = dense
    return result


def _writes_unseen(exported: ExportedProgram) -> bool:
    """Whether the graph changes a tensor in place and reads it under another name: only functional code says so."""
    return any(
        isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable and not n.users
        for n in exported.graph.nodes
    )


def _flatten(value: Any) -> list[Any]:
    return [x for v in value for x in _flatten(v)] if isinstance(value, (tuple, list)) else [value]


def _inlined(module: fx.GraphModule, state: dict[str, Tensor]) -> fx.Graph:
    graph = fx.Graph()
    results = _inline_into(graph, module, "", None, state)
    graph.output(results)
    return graph


def _inline_into(
    graph: fx.Graph, module: fx.GraphModule, prefix: str, inputs: list[Any] | None, state: dict[str, Tensor]
) -> Any:
    mapping: dict[fx.Node, Any] = {}
    feed = iter(inputs or ())
    for node in module.graph.nodes:
        if node.op == "placeholder" and inputs is not None:
            mapping[node] = next(feed)
        elif node.op == "get_attr" and isinstance(_lookup(module, str(node.target)), fx.GraphModule):
            mapping[node] = _lookup(module, str(node.target))
        elif node.op == "get_attr":
            name = prefix + str(node.target)
            state.setdefault(name, _lookup(module, str(node.target)))
            mapping[node] = graph.get_attr(name)
        elif node.op == "call_module":
            if "guard" not in str(node.target):
                raise UnsupportedError(f"node {node.name} calls the module {node.target}", "export the model again")
        elif node.op == "output":
            return graphs.map_nodes(node.args[0], lambda n: mapping[n])
        elif "wrap_with_set_grad_enabled" in str(node.target) or "wrap_with_autocast" in str(node.target):
            args = node.args[1:] if "set_grad" in str(node.target) else node.args[4:]
            body = mapping[args[0]]
            given = [graphs.map_nodes(a, lambda n: mapping[n]) for a in args[1:]]
            mapping[node] = _inline_into(graph, body, f"{prefix}{node.name}.", given, state)
        elif str(node.target) == "<built-in function getitem>" and isinstance(mapping[node.args[0]], (tuple, list)):
            mapping[node] = mapping[node.args[0]][node.args[1]]
        elif any(isinstance(mapping.get(n), fx.GraphModule) for n in node.all_input_nodes):
            raise UnsupportedError(
                f"node {node.name} is control flow ({node.target})", "export a model without data-dependent branches"
            )
        elif isinstance(node.target, HigherOrderOperator):
            raise UnsupportedError(f"node {node.name} is {node.target}", "export a model of plain operators")
        else:
            mapping[node] = graph.node_copy(node, lambda n: mapping[n])
            mapping[node].meta = {}
    return None


def _lookup(module: fx.GraphModule, target: str) -> Any:
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    return value


def _join_tied(graph: fx.Graph, state: dict[str, Tensor]) -> None:
    seen: dict[tuple[Any, ...], str] = {}
    first: dict[str, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        tensor = state[str(node.target)]
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        key = place if tensor.numel() else (node.target,)
        name = seen.setdefault(key, str(node.target))
        node.target = name
        if name in first:
            node.replace_all_uses_with(first[name])
            graph.erase_node(node)
        else:
            first[name] = node


def _drop_asserts(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if node.target in _DROPPED and not node.users:
            graph.erase_node(node)


def _hoist_sizes(graph: fx.Graph, inputs: tuple[InputSpec, ...]) -> None:
    """One ``sym_size`` per dynamic dimension, right behind the inputs: re-exporting then changes nothing."""
    nodes = graphs.placeholders(graph)
    if not nodes:
        raise InputError("the model has no inputs", "export a model that takes tensors")
    homes: dict[str, tuple[int, int]] = {}
    for i, spec in enumerate(inputs):
        for axis, dim in sorted(spec.dynamic.items()):
            homes.setdefault(dim.name, (i, axis))
    order = {node: i for i, node in enumerate(nodes)}
    users: dict[tuple[int, int], list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target is aten.sym_size.int and node.args[0].op == "placeholder":
            position, axis = order[node.args[0]], node.args[1]
            named = inputs[position].dynamic.get(axis)
            users.setdefault(homes[named.name] if named is not None else (position, axis), []).append(node)
    anchor = nodes[-1]
    for (position, axis), found in sorted(users.items(), key=lambda item: item[0]):
        with graph.inserting_after(anchor):
            anchor = graph.call_function(aten.sym_size.int, (nodes[position], axis))
        for node in found:
            node.replace_all_uses_with(anchor)
            graph.erase_node(node)


def _input_specs(exported: ExportedProgram) -> tuple[InputSpec, ...]:
    names = exported.graph_signature.user_inputs
    nodes = {n.name: n for n in exported.graph.nodes if n.op == "placeholder"}
    example = torch.utils._pytree.tree_leaves(exported.example_inputs or ())
    dims: dict[str, str] = {}
    specs = []
    for position, name in enumerate(names):
        value = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
        if not isinstance(value, Tensor):
            raise UnsupportedError(f"input {name!r} is not a tensor", "export the model with tensor inputs only")
        given = example[position] if position < len(example) and isinstance(example[position], Tensor) else None
        shape: list[int] = []
        dynamic: dict[int, DynamicDim] = {}
        sizes: list[Any] = list(value.shape)
        for i, size in enumerate(sizes):
            if isinstance(size, torch.SymInt):
                dynamic[i] = _dynamic_dim(exported, size, _dim_name(dims, str(size.node.expr), i, value.dtype))
                shape.append(given.shape[i] if given is not None else max(dynamic[i].low, 2))
            else:
                shape.append(int(size))
        specs.append(InputSpec(str(name), tuple(shape), value.dtype, dynamic))
    return tuple(specs)


def _dim_name(known: dict[str, str], symbol: str, position: int, dtype: torch.dtype) -> str:
    """A readable name per symbol: ``batch``, ``sequence`` (dimension 1 of token inputs), else by position."""
    if symbol not in known:
        tokens = position == 1 and not dtype.is_floating_point
        wanted = "batch" if position == 0 else "sequence" if tokens else f"dim{position}"
        taken = sum(name.startswith(wanted) for name in known.values())
        known[symbol] = f"{wanted}_{taken + 1}" if taken else wanted
    return known[symbol]


def _dynamic_dim(exported: ExportedProgram, size: torch.SymInt, name: str) -> DynamicDim:
    bounds = exported.range_constraints.get(size.node.expr)
    low = max(1, int(bounds.lower)) if bounds is not None else 1
    high = int(bounds.upper) if bounds is not None and bounds.upper.is_Integer else _UNBOUNDED
    return DynamicDim(name, low, min(high, 1 << 20))
