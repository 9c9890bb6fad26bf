"""Tensors made in the graph."""

from typing import Any

from torch import fx

from compactor.ir.analysis import Analysis, AxesTree, fixed
from compactor.ir.axes import Axes, Cluster
from compactor.ir.graphs import arguments, op_name
from compactor.ir.rules import rewrite, rule
from compactor.ir.rules.view import resized
from compactor.ir.slicing import Resize


@rule("arange", "scalar_tensor", "linspace", "eye", "empty", "rand", "randn", "tril_indices", "triu_indices")
def positions(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Values depend on positions: nothing here is prunable."""
    return fixed(analysis.program.values[node])


@rule("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
def constant(node: fx.Node, analysis: Analysis) -> AxesTree:
    """All values alike: a literal size is free to follow whatever it meets."""
    shape = analysis.shape(node)
    sizes: list[Any] = list(arguments(node)[_position(node)])
    free = [d for d, size in enumerate(sizes) if isinstance(size, int) and size > 1]
    return Axes(shape, tuple(Cluster((d,), analysis.coupling.fresh(shape[d])) for d in free))


@rewrite("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
def resize_constant(old: fx.Node, new: fx.Node, resize: Resize) -> None:
    """Literal sizes follow the result's own."""
    position = _position(old)
    old_sizes, new_sizes = list(arguments(old)[position]), list(arguments(new)[position])
    new.update_arg(position, resized(old_sizes, new_sizes, old, resize))


def _position(node: fx.Node) -> int:
    return 1 if op_name(node).startswith("new_") else 0
