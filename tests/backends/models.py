"""Small models in every form that a backend must lower, and a hand-made quantization that needs no pass."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx, nn
from torch.export import Dim, export

from compactor.ir import graphs
from compactor.ir.exported import from_exported
from compactor.ir.graphs import aten
from compactor.ir.program import Program

q = torch.ops.quantized_decomposed
BATCH = Dim("batch", min=1, max=4096)


class Residual(nn.Module):
    """Convolution, batch norm, a residual block, a depthwise convolution, pooling, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.a, self.norm_a = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16)
        self.point = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        x = torch.relu(x + self.norm_a(self.a(x)))
        x = torch.relu(self.point(torch.relu(self.depth(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Encoder(nn.Module):
    """One pre-norm transformer layer with a padding mask over a dynamic sequence."""

    def __init__(self, hidden: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.positions = nn.Embedding(50, hidden), nn.Embedding(64, hidden)
        self.norm_a, self.norm_b = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.mix, self.up, self.down = nn.Linear(hidden, hidden), nn.Linear(hidden, 64), nn.Linear(64, hidden)
        self.head = nn.Linear(hidden, 3)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions(torch.arange(tokens.shape[1]))
        h = self.norm_a(x)
        query, key, value = self.split(self.query(h)), self.split(self.key(h)), self.split(self.value(h))
        keep = mask.to(torch.bool)[:, None, None, :]
        h = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=keep)
        x = x + self.mix(h.transpose(1, 2).reshape(x.shape))
        x = x + self.down(nn.functional.gelu(self.up(self.norm_b(x))))
        logits: Tensor = self.head(x[:, 0])
        return logits


class TwoInTwoOut(nn.Module):
    """Two inputs of different shapes, two outputs, and one more input that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(6, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor, vector: Tensor, unused: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.image(image)).mean((2, 3)) + self.vector(vector)
        return self.head(features), features.sigmoid()


def _program(module: nn.Module, inputs: tuple[Tensor, ...], shapes: tuple[Mapping[int, Dim], ...]) -> Program:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return from_exported(export(module.eval(), inputs, dynamic_shapes=shapes))


@cache
def residual() -> Program:
    """A small CNN, input (N, 3, 16, 16)."""
    torch.manual_seed(0)
    return _program(Residual(), (torch.rand(2, 3, 16, 16),), ({0: BATCH},))


@cache
def encoder() -> Program:
    """A small transformer, inputs (N, S) tokens and mask, S nominally 12."""
    torch.manual_seed(1)
    tokens, mask = torch.randint(0, 50, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    dims = {0: BATCH, 1: Dim("sequence", min=2, max=64)}
    return _program(Encoder(), (tokens, mask), (dims, dims))


@cache
def two_in_two_out() -> Program:
    """Inputs (N, 3, 9, 9), (N, 6) and an unused (N, 2)."""
    torch.manual_seed(2)
    inputs = torch.rand(2, 3, 9, 9), torch.rand(2, 6), torch.rand(2, 2)
    return _program(TwoInTwoOut(), inputs, ({0: BATCH},) * 3)


MODELS = {"residual": residual, "encoder": encoder, "two_in_two_out": two_in_two_out}


def inputs_for(program: Program, batch: int, seed: int = 0, sequence: int | None = None) -> tuple[Tensor, ...]:
    """Inputs whose integers use the whole vocabulary and whose mask hides the tail of the second sample."""
    generator = torch.Generator().manual_seed(seed)
    values = []
    for spec, (shape, dtype) in zip(program.inputs, program.input_shapes(batch), strict=True):
        shape = (shape[0], sequence) if sequence is not None and dtype == torch.int64 else shape
        if dtype.is_floating_point:
            values.append(torch.rand(shape, generator=generator).to(dtype))
        elif spec.name == "mask":
            values.append(torch.ones(shape, dtype=dtype))
            values[-1][1:2, -3:] = 0
        else:
            values.append(torch.randint(0, 50, shape, generator=generator))
    return tuple(values)


class _Ranges(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.peak: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            self.peak[n.name] = float(value.abs().max())
        return value


def quantized(program: Program, *, fold: bool = True) -> Program:
    """int8 form: every convolution and linear has its input and weight behind q/dq; ``fold`` stores weights as int8."""
    ranges = _Ranges(graphs.graph_module(program.graph, dict(program.state)))
    ranges.run(*inputs_for(program, 8))
    graph, mapping = graphs.copy_graph(program.graph)
    state = dict(program.state)
    done: dict[fx.Node, fx.Node] = {}
    for old, node in mapping.items():
        if old.target not in (aten.conv2d.default, aten.linear.default):
            continue
        source, weight = old.args[0], old.args[1]
        assert isinstance(source, fx.Node) and isinstance(weight, fx.Node)
        with graph.inserting_before(node):
            given = mapping[source]
            if given not in done:
                done[given] = _activation(graph, given, ranges.peak[source.name] / 127)
            node.update_arg(0, done[given])
            node.update_arg(1, _weight(graph, state, str(weight.target), mapping[weight], fold))
    graphs.eliminate_dead(graph)
    return replace(program, graph=graph, state=state, precision="int8")


def _activation(graph: fx.Graph, given: fx.Node, scale: float) -> fx.Node:
    args = (scale, 0, -128, 127, torch.int8)
    small = graph.call_function(q.quantize_per_tensor.default, (given, *args))
    return graph.call_function(q.dequantize_per_tensor.default, (small, *args))


def _weight(graph: fx.Graph, state: dict[str, Tensor], name: str, given: fx.Node, fold: bool) -> fx.Node:
    weight = state[name]
    scales = weight.flatten(1).abs().amax(1) / 127
    state[f"{name}_scale"], state[f"{name}_zero"] = scales, torch.zeros(len(scales), dtype=torch.int64)
    args = (graph.get_attr(f"{name}_scale"), graph.get_attr(f"{name}_zero"), 0, -127, 127, torch.int8)
    if fold:
        shape = (-1, *[1] * (weight.dim() - 1))
        state[f"{name}_int8"] = (weight / scales.view(shape)).round().clamp(-127, 127).to(torch.int8)
        small = graph.get_attr(f"{name}_int8")
    else:
        small = graph.call_function(q.quantize_per_channel.default, (given, *args))
    return graph.call_function(q.dequantize_per_channel.default, (small, *args))


def cast(program: Program, dtype: torch.dtype) -> Program:
    """The Program computing in ``dtype``: weights stored in it, float inputs cast on entry, outputs cast back."""
    graph, _ = graphs.copy_graph(program.graph)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in program.state.items()}
    for spec, node in zip(program.inputs, graphs.placeholders(graph), strict=True):
        if spec.dtype.is_floating_point and node.users:
            users = list(node.users)
            with graph.inserting_after(node):
                entry = graph.call_function(aten.to.dtype, (node, dtype))
            for user in users:
                user.replace_input_with(node, entry)
    output = graphs.output_node(graph)
    with graph.inserting_before(output):
        results: Any = output.args[0]
        output.args = (tuple(graph.call_function(aten.to.dtype, (n, torch.float32)) for n in results),)
    return replace(program, graph=graph, state=state, precision=str(dtype).removeprefix("torch."))
