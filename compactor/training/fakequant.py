"""Quantization-aware training: a Program whose quantizers round in the forward and learn their scales (LSQ)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, fx, nn

from compactor.ir.program import Program
from compactor.ir.quantizing import edges_of, leaves, put
from compactor.ir.quantplan import Quantizer, QuantPlan


class FakeQuantizer(nn.Module):
    """Rounds as deployed; gradients pass straight through inside the range and are zero beyond it.

    Learned step size quantization (Esser et al., ICLR 2020): the gradient of the scale has the rounding error in it
    (section 2.1) and is scaled by 1/sqrt(N Qp) (section 2.2), N values per scale and sample. Ours: what is trained is
    the logarithm of the scale over where it began, so that it stays positive and a step of AdamW changes weights'
    scales of 1e-3 and activations' of 1e-1 alike (as Jain et al., 2020, section 4, for thresholds). Zero points stay.
    """

    start: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.weight, self.axis = quantizer.weight, quantizer.axis
        self.low, self.high = quantizer.low, quantizer.high
        self.positive = max(1.0, float(self.high - quantizer.zero_point.min()))
        self.register_buffer("start", quantizer.scale.float().reshape(-1), persistent=False)
        self.register_buffer("zero_point", quantizer.zero_point.float().reshape(-1), persistent=False)
        self.growth = nn.Parameter(torch.zeros_like(self.start))

    @property
    def scale(self) -> Tensor:
        """(channels,) or (1,)."""
        return self.start * self.growth.exp()

    def forward(self, x: Tensor) -> Tensor:
        """The rounded values, float32, in the shape of ``x``; activations are (N, ...)."""
        shape = x.shape if self.weight else x.shape[1:]
        values = prod(s for i, s in enumerate(shape) if i != self.axis)
        factor = (values * self.positive) ** -0.5
        # Float32 throughout: bfloat16 has too few digits for 255 levels.
        with torch.autocast(x.device.type, enabled=False):
            given = x.float(), self.scale, self.zero_point
            grid = self.low, self.high, factor
            if self.axis is None:
                return torch._fake_quantize_learnable_per_tensor_affine(*given, *grid)
            return torch._fake_quantize_learnable_per_channel_affine(*given, self.axis, *grid)


def fake_quantized(program: Program, plan: QuantPlan, *, dropout: bool = False) -> fx.GraphModule:
    """The Program, to be trained, with the plan's quantizers at their edges; its outputs are a tuple.

    The state holds the Program's own under its names and one ``quantizers.NUMBER.growth`` per scale or set of them.
    Scales that must stay equal are one.
    """
    module = program.module(train=True, dropout=dropout)
    graph = module.graph
    order = {node: i for i, node in enumerate(graph.nodes)}
    quantizers = nn.ModuleDict()
    module.add_module("quantizers", quantizers)
    for number, quantizer, readers in zip(shared(plan), plan, edges_of(graph, plan), strict=True):
        if number not in quantizers:
            quantizers[number] = FakeQuantizer(quantizer)
        with graph.inserting_before(min((n for n, _ in readers), key=order.__getitem__)):
            source = leaves(readers[0][0])[readers[0][1]]
            rounded = graph.call_module(f"quantizers.{number}", (source,))
        for node, place in readers:
            put(node, place, rounded)
    graph.lint()
    module.recompile()
    return module


def shared(plan: QuantPlan) -> Sequence[str]:
    """The number under which each quantizer's scale is trained.

    Activations of one scale that one node reads, such as a concatenation, keep one: it may only move integers then.
    """
    numbers: list[str] = []
    first: dict[tuple[object, ...], str] = {}
    for i, q in enumerate(plan):
        numbers.append(str(i))
        for edge in () if q.weight else q.edges:
            numbers[i] = first.setdefault((edge.node, *q.key()[2:]), numbers[i])
    return numbers


def learned(plan: QuantPlan, state: Mapping[str, Tensor]) -> QuantPlan:
    """The plan with the scales of a trained state; those it does not hold stay."""
    changes = {}
    for i, (number, q) in enumerate(zip(shared(plan), plan, strict=True)):
        growth = state.get(f"quantizers.{number}.growth")
        if growth is not None:
            scale = q.scale.float() * growth.detach().cpu().exp().reshape(q.scale.shape)
            changes[i] = replace(q, scale=scale)
    return plan.replaced(changes)
