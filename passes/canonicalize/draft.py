"""`Draft`: a private copy of a Program that rewrites work on, with shapes that hold for every allowed input size."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from compactor.ir import graphs
from compactor.ir.program import DynamicDim, InputSpec, Program
from compactor.ir.shapes import infer


class Draft:
    """A graph under rewriting. ``skipped`` collects why a rewrite that nearly fitted was left out.

    Shapes are inferred at two settings of the dynamic dimensions, in which different dimensions differ: what is equal
    in both is taken to be equal for all sizes.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.graph = graphs.copy_graph(program.graph)[0]
        self.state = dict(program.state)
        self.trainable = set(program.trainable)
        self.skipped: list[str] = []
        self._points: list[dict[fx.Node, Any]] | None = None

    # -- facts -----------------------------------------------------------------------------------------------------

    def value(self, node: Any) -> Any:
        """Fake value of a node (or a literal as it is); None for nodes made since the last `settle`."""
        return self._values(0).get(node) if isinstance(node, fx.Node) else node

    def tensor(self, node: Any) -> Tensor | None:
        """Fake value of a node that is a tensor, else None."""
        value = self.value(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, Tensor) else None

    def shapes(self, node: Any) -> list[tuple[int, ...]] | None:
        """The shape of a tensor at each setting, or None."""
        values = [self._values(i).get(node) for i in range(2)] if isinstance(node, fx.Node) else [None]
        return [tuple(v.shape) for v in values if isinstance(v, Tensor)] if isinstance(values[0], Tensor) else None

    def same(self, a: Any, b: Any) -> bool:
        """Whether two tensors have the same shape and dtype, whatever the input sizes."""
        first, second = self.tensor(a), self.tensor(b)
        if first is None or second is None or first.dtype != second.dtype:
            return False
        return self.shapes(a) == self.shapes(b)

    def number(self, value: Any) -> float | None:
        """A literal, or the element of a constant one-element tensor, as a number; else None."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, fx.Node) and value.op == "get_attr" and value.target not in self.trainable:
            tensor = self.state[str(value.target)]
            return float(tensor.item()) if tensor.dim() == 0 and tensor.dtype != torch.bool else None
        return None

    def _values(self, point: int) -> dict[fx.Node, Any]:
        if self._points is None:
            inputs = (_sizes(self.program.inputs, i) for i in range(2))
            self._points = [infer(self.graph, self.state, shapes) for shapes in inputs]
            self.graph.owning_module = None  # set by inference; new tensors are not known to that module
        return self._points[point]

    # -- changes ---------------------------------------------------------------------------------------------------

    def before(self, node: fx.Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A new call in front of ``node``."""
        with self.graph.inserting_before(node):
            return self.graph.call_function(target, args, kwargs)

    def constant(self, node: fx.Node, name: str, tensor: Tensor, *, trainable: bool = False) -> fx.Node:
        """A new tensor of the state, read in front of ``node``; an existing name gets a numbered one."""
        fresh, number = name, 0
        while fresh in self.state:
            fresh, number = f"{name}_{number}", number + 1
        self.state[fresh] = tensor
        if trainable:
            self.trainable.add(fresh)
        with self.graph.inserting_before(node):
            return self.graph.get_attr(fresh)

    def replace(self, node: fx.Node, by: fx.Node) -> None:
        """Let every user of ``node`` read ``by``."""
        node.replace_all_uses_with(by)
        self.graph.erase_node(node)

    def skip(self, node: fx.Node, reason: str) -> None:
        """Note why ``node`` was left as it is."""
        text = f"{node.name}: {reason}"
        if text not in self.skipped:
            self.skipped.append(text)

    def settle(self) -> None:
        """Remove dead code and forget inferred shapes."""
        graphs.eliminate_dead(self.graph)
        self._points = None

    def finish(self, **changes: Any) -> Program:
        """The Program of this draft."""
        return self.program.evolve(graph=self.graph, state=self.state, trainable=frozenset(self.trainable), **changes)


def _sizes(inputs: tuple[InputSpec, ...], point: int) -> list[tuple[tuple[int, ...], torch.dtype]]:
    dims: dict[str, DynamicDim] = {}
    for spec in inputs:
        for dim in spec.dynamic.values():
            dims.setdefault(dim.name, dim)
    sizes = {name: min(max(d.low, 2) + 2 * point + i, d.high) for i, (name, d) in enumerate(dims.items())}
    return [
        (tuple(sizes[s.dynamic[i].name] if i in s.dynamic else n for i, n in enumerate(s.shape)), s.dtype)
        for s in inputs
    ]
