"""Weights in few bits beside exact activations: which linear layers have them, and in what groups they are scaled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.ir.quantized import is_dequantize, ops


@dataclass(frozen=True)
class Packable:
    """A weight of shape (``rows``, ``columns``) whose integers fit into ``bits``.

    ``values`` are the integers, int8, in this shape; ``scales`` (rows, groups), float32: one per group of columns.
    """

    values: Tensor
    scales: Tensor
    bits: int

    @property
    def rows(self) -> int:
        """Output channels."""
        return self.values.shape[0]

    @property
    def columns(self) -> int:
        """Input channels."""
        return self.values.shape[1]

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return self.columns // self.scales.shape[1]


def packable(program: Program) -> Mapping[str, Packable]:
    """By their names in the state, the stored weights of linear layers that read exact values: 4 bits or fewer.

    With quantized activations the same weights are for integer kernels, which want 8 bits.
    """
    found = {}
    for node in program.graph.nodes:
        if node.target is aten.linear.default and not is_dequantize(node.args[0]):
            weight, shape = _behind_view(node.args[1], program)
            if _is_stored(weight, program):
                packed = _packable(weight, shape, program)
                if packed.bits <= 4:
                    found[str(weight.args[0].target)] = packed  # type: ignore[union-attr]
    return found


def _behind_view(node: Any, program: Program) -> tuple[fx.Node, tuple[int, ...]]:
    shape = tuple(program.values[node].shape)
    return (node.args[0] if node.target is aten.view.default else node), shape


def _is_stored(node: fx.Node, program: Program) -> bool:
    """Whether a node dequantizes integers of the state, a scale for every row."""
    if node.target is not ops.dequantize_per_channel.default or node.args[3] != 0:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and source.op == "get_attr"


def _packable(node: fx.Node, shape: tuple[int, ...], program: Program) -> Packable:
    values, scales = (program.state[str(a.target)] for a in node.args[:2])  # type: ignore[union-attr]
    low, high = (int(bound) for bound in node.args[4:6])  # type: ignore[arg-type]
    bits = (high - low).bit_length()
    return Packable(values.reshape(shape), scales.float().reshape(shape[0], -1), bits)
