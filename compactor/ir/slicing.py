"""Slicing: a Subnet made real, as smaller (or wider) tensors and fewer nodes."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from compactor.errors import InternalError
from compactor.ir import graphs
from compactor.ir.axes import Ids
from compactor.ir.program import Program
from compactor.ir.shapes import Shape
from compactor.ir.subnet import Subnet

if TYPE_CHECKING:
    from compactor.ir.space import SearchSpace


class Resize:
    """What a slice does to every value; rewrites ask it for sizes. Nodes are those of the original graph."""

    def __init__(self, space: "SearchSpace", subnet: Subnet) -> None:
        self._space = space
        self._copies = space.copies(subnet)
        self._shapes = space.shapes(subnet)

    def counts(self, node: Any, dim: int) -> Ids | None:
        """How often each index of a dimension is kept; None when it is fixed."""
        axes = self._space.analysis.of(node)
        return self._space.counts(axes, self._copies)[dim] if axes.shape else None

    def indices(self, node: Any) -> list[Ids | None]:
        """Per dimension, the indices that are kept, in their new order; None where it is fixed."""
        return self._space.indices(self._space.analysis.of(node), self._copies)

    def old_shape(self, node: Any) -> Shape:
        """Shape before."""
        return self._space.analysis.shape(node)

    def new_shape(self, node: Any) -> Shape:
        """Shape after."""
        shape: Shape = self._shapes[node]
        return shape

    def old_shapes(self, node: fx.Node) -> list[Shape]:
        """Shapes before, of a node with several results."""
        return [tuple(v.shape) for v in self._space.program.values[node]]

    def new_shapes(self, node: fx.Node) -> list[Shape]:
        """Shapes after, of a node with several results."""
        shapes: list[Shape] = self._shapes[node]
        return shapes


def slice_program(program: Program, subnet: Subnet, seed: int = 0, *, check: bool = True) -> Program:
    """The Program with only what the Subnet keeps.

    Outputs equal those of ``mask(program, subnet)``; ``slice(program, space.full())`` is the Program itself. Where the
    Subnet repeats units, weights that sum over them are shared out among the copies, unevenly by ``seed``, so that
    training tells the copies apart; the outputs are equal still, but for the ops that ``space.changes`` names.
    ``check``: every shape is inferred anew and held against the analysis; searches that probed the rules do without.
    Raises `InputError` when the Subnet is not one of the Program's space.
    """
    from compactor.ir.repeats import Repeats
    from compactor.ir.rules import find_rewrite
    from compactor.ir.space import rewired, space_of

    space = space_of(program)
    subnet = space.check(subnet)
    if subnet == space.full():
        return program
    resize = Resize(space, subnet)
    graph, mapping = rewired(program.graph, space.replaced(subnet))
    for old, new in mapping.items():
        rewrite = find_rewrite(old) if old.op == "call_function" else None
        if rewrite is not None and isinstance(program.values[old], (Tensor, tuple, list)):
            rewrite(old, new, resize)
    graphs.eliminate_dead(graph)  # sizes that are literal now
    state, left = {}, set(graph.nodes)
    repeats, generator = Repeats(space, subnet), torch.Generator().manual_seed(seed)
    for old, new in mapping.items():
        if new.op == "get_attr" and new in left:
            indices = resize.indices(old)
            tensor = _sliced(program.state[str(new.target)], indices)
            state[str(new.target)] = repeats.share_out(old, tensor, indices, generator)
    graph.lint()
    sliced = program.evolve(graph=graph, state=state)
    if check:
        _check(sliced, mapping, resize)
    return sliced


def _sliced(tensor: Tensor, indices: list[Ids | None]) -> Tensor:
    for dim, kept in enumerate(indices):
        if kept is not None and not np.array_equal(kept, np.arange(tensor.shape[dim])):
            tensor = tensor.index_select(dim, torch.from_numpy(kept))
    return tensor


def _check(sliced: Program, mapping: dict[fx.Node, fx.Node], resize: Resize) -> None:
    """Every value has the shape that the analysis predicted: a rule that lies does not get further than this."""
    for old, new in mapping.items():
        value = sliced.values.get(new)
        if isinstance(value, Tensor) and tuple(value.shape) != resize.new_shape(old):
            raise InternalError(
                f"node {old.name} has shape {tuple(value.shape)} after slicing, {resize.new_shape(old)} was predicted",
                f"the rule of {old.target} is wrong; please report this model",
            )
