"""Where a student and its teacher correspond: the residual stream behind every block, and every attention."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from compactor.errors import UnsupportedError
from compactor.ir import graphs
from compactor.ir.blocks import find_blocks
from compactor.ir.graphs import op_name
from compactor.ir.program import Program
from compactor.ir.shapes import Shape


@dataclass(frozen=True)
class Stream:
    """A student's hidden state and what it is in the teacher.

    Attributes:
        name: of the position; the same in both.
        node: in the student's graph.
        shape: in the student, at batch 1; ``whole`` is the teacher's.
        dim: the dimension of the channels.
    """

    name: str
    node: fx.Node
    shape: Shape
    whole: Shape
    dim: int

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of student and teacher."""
        return self.shape[self.dim], self.whole[self.dim]


def hidden(program: Program, *, blocks: bool = True) -> dict[str, fx.Node]:
    """Hidden states in graph order, by names that slicing keeps.

    What leaves a residual block, named by a weight of the block; where there are no blocks, what each matrix or filter
    makes, behind its norm and activation, named by the weight. The logits are none.
    """
    node = {n.name: n for n in program.graph.nodes}
    found: dict[fx.Node, str] = {}
    for block in find_blocks(program) if blocks else ():
        own = [t for t in block.tensors if t in program.trainable]
        if own:
            found.setdefault(node[block.exit], min(own))
    if not found:
        found = {_activated(program, n): w for n in program.graph.nodes if (w := _weight(program, n)) is not None}
    outputs = set(graphs.output_node(program.graph).all_input_nodes)
    order = {n: i for i, n in enumerate(program.graph.nodes)}
    return {found[n]: n for n in sorted(found, key=order.__getitem__) if n not in outputs}


def attentions(program: Program) -> dict[str, fx.Node]:
    """Attention nodes over (N, heads, T, width) in graph order, named by the weight that makes their queries."""
    found: dict[str, fx.Node] = {}
    for n in program.graph.nodes:
        if op_name(n) == "scaled_dot_product_attention" and program.values[n].dim() == 4:
            name = _source(program, graphs.argument(n, 0, "query"))
            while name in found:
                name += "+"
            found[name] = n
    return found


def streams(student: Program, teacher: Program) -> tuple[list[Stream], dict[str, fx.Node]]:
    """The student's hidden states that the teacher has too, and all of the teacher's.

    Raises `UnsupportedError` when there are none. A student that lost every block is compared behind its matrices.
    """
    ours, theirs = hidden(student), hidden(teacher)
    if not ours.keys() & theirs.keys():
        ours, theirs = hidden(student, blocks=False), hidden(teacher, blocks=False)
    found = []
    for name, node in ours.items():
        if name in theirs:
            shape, whole = tuple(student.values[node].shape), tuple(teacher.values[theirs[name]].shape)
            dim = _channels(shape, whole)
            if dim is not None:
                found.append(Stream(name, node, shape, whole, dim))
    if not found:
        raise UnsupportedError(
            "student and teacher share no hidden state to compare",
            "give a student that was sliced from this teacher, or distil its logits: distill.logits",
        )
    return found, theirs


def _channels(shape: Shape, whole: Shape) -> int | None:
    """The dimension in which two shapes differ; the usual one where they do not; None where they differ in several."""
    if len(shape) != len(whole) or len(shape) < 2:
        return None
    differing = [d for d, (a, b) in enumerate(zip(shape, whole, strict=True)) if a != b]
    if len(differing) > 1 or 0 in differing:
        return None
    return differing[0] if differing else 1 if len(shape) == 4 else len(shape) - 1


def _weight(program: Program, node: fx.Node) -> str | None:
    """The trainable matrix or filter that a node reads."""
    names = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
    return next((n for n in names if n in program.trainable and program.state[n].dim() > 1), None)


def _activated(program: Program, node: fx.Node) -> fx.Node:
    """The end of the chain of norms and activations behind a node."""
    shape = _shape(program.values, node)
    while len(node.users) == 1:
        user = next(iter(node.users))
        sources = [n for n in user.all_input_nodes if n.op != "get_attr"]
        if sources != [node] or _weight(program, user) is not None or _shape(program.values, user) != shape:
            break
        node = user
    return node


def _shape(values: Mapping[fx.Node, Any], node: fx.Node) -> Shape | None:
    value = values.get(node)
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _source(program: Program, node: fx.Node) -> str:
    """The nearest weight upstream."""
    queue = [node]
    for current in queue:
        weight = _weight(program, current)
        if weight is not None:
            return weight
        queue.extend(n for n in current.all_input_nodes if n not in queue)
    return node.name
