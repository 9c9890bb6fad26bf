"""Cost counting: parameters, MACs and the kernels that a runtime would run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from compactor.ir.grouping import Grouping, kernels_of
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program

__all__ = ["Cost", "count", "homes", "kernels", "kernels_of", "shapes_of"]


@dataclass(frozen=True)
class Cost:
    """``parameters``: trainable elements, shared ones once; ``macs`` at batch 1; ``bytes`` of all tensors."""

    parameters: int
    macs: int
    bytes: int


def count(program: Program) -> Cost:
    """Cost of a Program at batch 1 and nominal shapes."""
    parameters = sum(program.state[name].numel() for name in program.trainable)
    size = sum(t.numel() * t.element_size() for t in program.state.values())
    return Cost(parameters, sum(k.macs for k in kernels(program)), size)


def kernels(program: Program) -> tuple[Kernel, ...]:
    """The kernels of a Program at batch 1, in graph order."""
    return kernels_of(program.graph, shapes_of(program.values))


def homes(program: Program) -> tuple[dict[str, int], dict[str, int]]:
    """By the names of nodes, the numbers of the kernels they belong to; and of those in none, of those they feed."""
    grouping = Grouping(program.graph, shapes_of(program.values))
    grouping.run()
    return grouping.homes()


def shapes_of(values: Mapping[fx.Node, Any]) -> dict[fx.Node, Any]:
    """The shapes in a map of (fake) values, as `kernels_of` takes them; values that are no tensors are left out."""
    shapes = {node: _shape(value) for node, value in values.items()}
    return {node: shape for node, shape in shapes.items() if shape is not None}


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(map(int, value.shape))
    if isinstance(value, (tuple, list)) and value and all(isinstance(v, Tensor) for v in value):
        return tuple(map(_shape, value))
    return None
