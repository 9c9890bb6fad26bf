"""Residual blocks: branches that can be removed whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from torch import Tensor, fx

from compactor.ir import graphs
from compactor.ir.graphs import op_name
from compactor.ir.program import Program

# Ops that a residual sum may pass through before the block ends: where the block's input went through the same op,
# removing the block with it leaves the stream as it was (post-norm transformers, ResNets).
_CLOSING = {"layer_norm", "rms_norm", "group_norm", "batch_norm", "relu", "relu6", "hardtanh", "gelu", "silu"}
_TRANSPARENT = {"dropout", "clone", "contiguous", "alias"}


@dataclass(frozen=True)
class Block:
    """A residual branch from ``entry`` to ``exit`` (node names): removing it puts the entry in the exit's place.

    ``parameters`` are those that only it uses; ``tensors`` the names of all weights on the branch.
    """

    name: str
    entry: str
    exit: str
    parameters: int
    tensors: tuple[str, ...]


def find_blocks(program: Program) -> list[Block]:
    """All residual branches that hold weights of their own, in graph order."""
    blocks = []
    order = {node: i for i, node in enumerate(program.graph.nodes)}
    nodes, live = list(program.graph.nodes), live_nodes(program.graph, {})
    for node in nodes:
        if op_name(node) not in ("add", "add_") or len(node.all_input_nodes) != 2:
            continue
        for entry, branch in (node.all_input_nodes, node.all_input_nodes[::-1]):
            if _same_shape(program.values, entry, node) and _depends(nodes[order[entry] : order[node]], entry, branch):
                blocks.append(_block(program, entry, _closing(entry, node, program.values), live, order))
    return _named([b for b in blocks if b.tensors])


def _same_shape(values: Mapping[fx.Node, Any], a: fx.Node, b: fx.Node) -> bool:
    return isinstance(values[a], Tensor) and values[a].shape == values[b].shape and values[a].dtype == values[b].dtype


def _depends(between: list[fx.Node], entry: fx.Node, branch: fx.Node) -> bool:
    reached = {entry}
    for node in between:
        if any(n in reached for n in node.all_input_nodes):
            reached.add(node)
    return branch in reached and branch is not entry


def _closing(entry: fx.Node, end: fx.Node, values: Mapping[fx.Node, Any]) -> fx.Node:
    source, current = entry, end
    while op_name(source) in _TRANSPARENT:
        source = source.all_input_nodes[0]
    while len(current.users) == 1:
        user = next(iter(current.users))
        if op_name(user) in _CLOSING and op_name(user) == op_name(source) and _same_shape(values, user, entry):
            return user
        if op_name(user) not in _TRANSPARENT:
            break
        current = user
    return end


def dying(entry: fx.Node, end: fx.Node, live: set[fx.Node]) -> set[fx.Node]:
    """The live nodes that nothing needs once ``entry`` stands in the place of ``end``: a walk over the branch alone."""
    gone, stack = {end}, [end]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source is not entry and source not in gone and all(u in gone or u not in live for u in source.users):
                gone.add(source)
                stack.append(source)
    return gone


def _block(program: Program, entry: fx.Node, end: fx.Node, live: set[fx.Node], order: Mapping[fx.Node, int]) -> Block:
    gone = sorted(dying(entry, end, live), key=order.__getitem__)
    read = dict.fromkeys(str(s.target) for n in gone for s in (n, *n.all_input_nodes) if s.op == "get_attr")
    own = {str(n.target) for n in gone if n.op == "get_attr"}
    parameters = sum(program.state[t].numel() for t in own & program.trainable)
    return Block("", entry.name, end.name, parameters, tuple(t for t in read if t in program.trainable or t in own))


def live_nodes(graph: fx.Graph, replaced: Mapping[fx.Node, fx.Node]) -> set[fx.Node]:
    """Nodes that the output still needs when some are replaced by others."""
    stack, live = [graphs.output_node(graph)], set()
    while stack:
        node = stack.pop()
        while node in replaced:
            node = replaced[node]
        if node not in live:
            live.add(node)
            stack.extend(node.all_input_nodes)
    return live


def _named(blocks: list[Block]) -> list[Block]:
    named: dict[str, Block] = {}
    for block in blocks:
        parts = [t.split(".")[:-1] for t in block.tensors]
        same = takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False))
        name = ".".join(column[0] for column in same) or block.exit
        while name in named:
            name += "+"
        named[name] = Block(name, block.entry, block.exit, block.parameters, block.tensors)
    return list(named.values())
