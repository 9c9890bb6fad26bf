"""NAS-Bench-201 networks as Programs (Dong and Yang, ICLR 2020, section 2): graphs written down, nothing exported."""

from typing import Any

import torch
from torch import Tensor, fx

from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import DynamicDim, InputSpec, Program

STAGES = (16, 32, 64)
CELLS = 5
CLASSES = 10
_INPUT = InputSpec("x", (1, 3, 32, 32), torch.float32, {0: DynamicDim("batch")})


def network(arch: str) -> Program:
    """The network of a cell such as ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+...``; what reads zeros is left out.

    Weights are zeros: scores draw their own.
    """
    writer = _Writer()
    x = writer.norm(writer.conv(writer.graph.placeholder("x"), 3, 16, 3), 16)
    for stage, width in enumerate(STAGES):
        if stage:
            x = _reduction(writer, x, width // 2, width)
        for _ in range(CELLS):
            x = _cell(writer, arch, x, width)
    return writer.program(_head(writer, x))


class _Writer:
    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.state: dict[str, Tensor] = {}

    def call(self, op: Any, *args: Any) -> fx.Node:
        return self.graph.call_function(op, args)

    def weight(self, *shape: int, value: float = 0.0) -> fx.Node:
        name = f"w{len(self.state)}"
        self.state[name] = torch.full(shape, value)
        return self.graph.get_attr(name)

    def conv(self, x: fx.Node, width: int, out: int, kernel: int, stride: int = 1) -> fx.Node:
        weight = self.weight(out, width, kernel, kernel)
        return self.call(aten.conv2d.default, x, weight, None, [stride] * 2, [kernel // 2] * 2)

    def norm(self, x: fx.Node, width: int) -> fx.Node:
        scale, shift, mean, var = (self.weight(width, value=v) for v in (1.0, 0.0, 0.0, 1.0))
        return self.call(aten.batch_norm.default, x, scale, shift, mean, var, False, 0.1, 1e-5, False)

    def bent(self, x: fx.Node, width: int, out: int, kernel: int, stride: int = 1) -> fx.Node:
        """ReLU, convolution, norm."""
        return self.norm(self.conv(self.call(aten.relu.default, x), width, out, kernel, stride), out)

    def add(self, a: fx.Node | None, b: fx.Node | None) -> fx.Node | None:
        return self.call(aten.add.Tensor, a, b) if a is not None and b is not None else a if b is None else b

    def program(self, output: fx.Node) -> Program:
        self.graph.output((output,))
        graphs.eliminate_dead(self.graph)
        return Program(self.graph, self.state, frozenset(self.state), (_INPUT,), ("logits",))


def _cell(writer: _Writer, arch: str, x: fx.Node, width: int) -> fx.Node:
    values: list[fx.Node | None] = [x]
    for text in arch.split("+"):
        total: fx.Node | None = None
        for edge in text.strip("|").split("|"):
            op, _, source = edge.partition("~")
            total = writer.add(total, _edge(writer, op, values[int(source)], width))
        values.append(total)
    last = values[-1]
    return last if last is not None else writer.call(aten.mul.Tensor, x, 0.0)


def _edge(writer: _Writer, op: str, x: fx.Node | None, width: int) -> fx.Node | None:
    """What an edge adds; None for zeros."""
    if op == "none" or x is None:
        return None
    if op == "skip_connect":
        return x
    if op == "avg_pool_3x3":
        return writer.call(aten.avg_pool2d.default, x, [3, 3], [1, 1], [1, 1], False, False)
    return writer.bent(x, width, width, 3 if op.endswith("3x3") else 1)


def _reduction(writer: _Writer, x: fx.Node, width: int, out: int) -> fx.Node:
    body = writer.bent(writer.bent(x, width, out, 3, 2), out, out, 3)
    short = writer.conv(writer.call(aten.avg_pool2d.default, x, [2, 2], [2, 2]), width, out, 1)
    return writer.call(aten.add.Tensor, body, short)


def _head(writer: _Writer, x: fx.Node) -> fx.Node:
    x = writer.call(aten.relu.default, writer.norm(x, STAGES[-1]))
    x = writer.call(aten.mean.dim, x, [2, 3])
    return writer.call(aten.linear.default, x, writer.weight(CLASSES, STAGES[-1]), writer.weight(CLASSES))
