"""The steps that `tests.strategies` composes: plain data, each building a module for whatever width it meets."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ACTIVATIONS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "hardswish": nn.Hardswish,
}


class Step(Protocol):
    """A part of a network on values whose unit axis has ``c`` entries."""

    def width(self, c: int) -> int:
        """Units that come out when ``c`` go in."""
        ...

    def build(self, c: int, axis: int) -> nn.Module:
        """The module; ``axis`` is the unit axis: 1 for feature maps, -1 for sequences."""
        ...


Body = tuple[Step, ...]


def body_width(body: Body, c: int) -> int:
    """Units after all steps."""
    for step in body:
        c = step.width(c)
    return c


def chain(body: Body, c: int, axis: int, end: int | None = None) -> nn.Sequential:
    """All steps in a row; with ``end``, a projection to that many units where they end in another number."""
    parts = []
    for step in body:
        parts.append(step.build(c, axis))
        c = step.width(c)
    if end is not None and c != end:
        parts.append(nn.Conv2d(c, end, 1) if axis == 1 else nn.Linear(c, end))
    return nn.Sequential(*parts)


class Fn(nn.Module):
    """A function over named parts."""

    def __init__(self, function: object, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)  # type: ignore[operator, no-any-return]


@dataclass(frozen=True)
class Keeping:
    """A step that keeps the width."""

    def width(self, c: int) -> int:
        return c


@dataclass(frozen=True)
class Conv:
    """Convolution, norm, activation."""

    out: int
    kernel: int
    groups: int
    norm: str
    activation: str

    def width(self, c: int) -> int:
        return self.out

    def build(self, c: int, axis: int) -> nn.Module:
        groups = math.gcd(self.groups, math.gcd(c, self.out))
        conv = nn.Conv2d(c, self.out, self.kernel, padding=self.kernel // 2, groups=groups, bias=self.norm == "none")
        return nn.Sequential(conv, _norm(self.norm, self.out), _ACTIVATIONS[self.activation]())


@dataclass(frozen=True)
class Depthwise(Keeping):
    """Depthwise 3x3 convolution and norm."""

    norm: str

    def build(self, c: int, axis: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c), _norm(self.norm, c), nn.ReLU())


@dataclass(frozen=True)
class SqueezeExcite(Keeping):
    """Channel gates of pooled features."""

    squeezed: int

    def build(self, c: int, axis: int) -> nn.Module:
        gate = nn.Sequential(nn.Conv2d(c, self.squeezed, 1), nn.ReLU(), nn.Conv2d(self.squeezed, c, 1), nn.Sigmoid())
        return Fn(lambda m, x: x * m.gate(x.mean((2, 3), keepdim=True)), gate=gate)


@dataclass(frozen=True)
class Shuffle(Keeping):
    """Shuffle of units: view, transpose, view."""

    groups: int

    def build(self, c: int, axis: int) -> nn.Module:
        sizes = (math.gcd(self.groups, c), c // math.gcd(self.groups, c))
        first = axis if axis > 0 else -2
        return Fn(lambda m, x: x.unflatten(axis, sizes).transpose(first, first + 1).flatten(first, first + 1))


@dataclass(frozen=True)
class GroupedNorm(Keeping):
    """A view into groups of units, each normalised on its own, and back: the norm of queries and keys, per head."""

    groups: int

    def build(self, c: int, axis: int) -> nn.Module:
        groups = math.gcd(self.groups, c)
        return Fn(lambda m, x: m.norm(x.unflatten(-1, (groups, -1))).flatten(-2), norm=nn.LayerNorm(c // groups))


@dataclass(frozen=True)
class ChannelsLast(Keeping):
    """Layer norm and two linear layers over channels moved last."""

    hidden: int

    def build(self, c: int, axis: int) -> nn.Module:
        inner = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, self.hidden), nn.GELU(), nn.Linear(self.hidden, c))
        return Fn(lambda m, x: m.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), inner=inner)


@dataclass(frozen=True)
class PadChannels:
    """Zero channels on both sides."""

    each: int

    def width(self, c: int) -> int:
        return c + 2 * self.each

    def build(self, c: int, axis: int) -> nn.Module:
        return Fn(lambda m, x: F.pad(x, (0, 0, 0, 0, self.each, self.each)))


@dataclass(frozen=True)
class Pool(Keeping):
    """Windows of two that keep the size, or a strided slice repeated back to it."""

    kind: str

    def build(self, c: int, axis: int) -> nn.Module:
        if self.kind == "max":
            return nn.MaxPool2d(3, 1, 1)
        if self.kind == "average":
            return nn.AvgPool2d(3, 1, 1)
        return Fn(lambda m, x: F.interpolate(x[:, :, ::2, ::2], scale_factor=2.0))


@dataclass(frozen=True)
class Dense:
    """Linear layer and activation."""

    out: int
    activation: str

    def width(self, c: int) -> int:
        return self.out

    def build(self, c: int, axis: int) -> nn.Module:
        return nn.Sequential(nn.Linear(c, self.out), _ACTIVATIONS[self.activation]())


@dataclass(frozen=True)
class Norm(Keeping):
    """Layer or root-mean-square norm."""

    kind: str

    def build(self, c: int, axis: int) -> nn.Module:
        return nn.LayerNorm(c) if self.kind == "layer" else nn.RMSNorm(c, eps=1e-6)


@dataclass(frozen=True)
class FeedForward(Keeping):
    """Plain, or gated with the gate packed (glu) or apart (swiglu)."""

    hidden: int
    kind: str

    def build(self, c: int, axis: int) -> nn.Module:
        up = nn.Linear(c, 2 * self.hidden if self.kind == "glu" else self.hidden)
        down = nn.Linear(self.hidden, c)
        if self.kind == "glu":
            return Fn(lambda m, x: m.down(F.glu(m.up(x), -1)), up=up, down=down)
        if self.kind == "swiglu":
            return Fn(
                lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)), gate=nn.Linear(c, self.hidden), up=up, down=down
            )
        return Fn(lambda m, x: m.down(F.gelu(m.up(x))), up=up, down=down)


@dataclass(frozen=True)
class Attention(Keeping):
    """Self-attention. ``shared`` query heads use one key-value head (separate projections only)."""

    heads: int
    shared: int
    packing: str
    written_out: bool

    def build(self, c: int, axis: int) -> nn.Module:
        out = nn.Linear(self.heads * 4, c)
        if self.packing != "separate":
            return Fn(self._packed, qkv=nn.Linear(c, 3 * self.heads * 4), out=out)
        few = max(1, self.heads // self.shared) * 4
        return Fn(self._separate, q=nn.Linear(c, self.heads * 4), k=nn.Linear(c, few), v=nn.Linear(c, few), out=out)

    def _packed(self, m: nn.Module, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        if self.packing == "view":
            q, k, v = m.qkv(x).view(n, length, 3, self.heads, 4).permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[operator]
        else:
            q, k, v = (t.view(n, length, -1, 4).transpose(1, 2) for t in m.qkv(x).chunk(3, -1))  # type: ignore[operator]
        return self._attend(m, q, k, v)

    def _separate(self, m: nn.Module, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (p(x).view(n, length, -1, 4).transpose(1, 2) for p in (m.q, m.k, m.v))  # type: ignore[operator]
        if k.shape[1] != self.heads:
            k, v = (t.repeat_interleave(self.heads // k.shape[1], 1) for t in (k, v))
        return self._attend(m, q, k, v)

    def _attend(self, m: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.written_out:
            y = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return m.out(y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1))  # type: ignore[operator, no-any-return]


@dataclass(frozen=True)
class Residual(Keeping):
    """``x + body(x)``."""

    body: Body

    def build(self, c: int, axis: int) -> nn.Module:
        return Fn(lambda m, x: x + m.inner(x), inner=chain(self.body, c, axis, end=c))


@dataclass(frozen=True)
class Gate(Keeping):
    """``x * sigmoid(body(x))``."""

    body: Body

    def build(self, c: int, axis: int) -> nn.Module:
        return Fn(lambda m, x: x * torch.sigmoid(m.inner(x)), inner=chain(self.body, c, axis, end=c))


@dataclass(frozen=True)
class Reuse(Keeping):
    """The same weights twice."""

    body: Body

    def build(self, c: int, axis: int) -> nn.Module:
        return Fn(lambda m, x: m.inner(torch.tanh(m.inner(x))), inner=chain(self.body, c, axis, end=c))


@dataclass(frozen=True)
class Tied(Keeping):
    """One matrix into ``hidden`` units and, transposed, out of them."""

    hidden: int

    def build(self, c: int, axis: int) -> nn.Module:
        def both(m: nn.Module, x: Tensor) -> Tensor:
            x = x.movedim(axis, -1)
            return F.linear(F.gelu(m.into(x)), m.into.weight.t()).movedim(-1, axis)  # type: ignore[operator, union-attr]

        return Fn(both, into=nn.Linear(c, self.hidden))


@dataclass(frozen=True)
class Concat:
    """Branches side by side."""

    branches: tuple[Body, ...]

    def width(self, c: int) -> int:
        return sum(body_width(b, c) for b in self.branches)

    def build(self, c: int, axis: int) -> nn.Module:
        parts = {f"branch{i}": chain(b, c, axis) for i, b in enumerate(self.branches)}
        return Fn(lambda m, x: torch.cat([p(x) for p in m.children()], axis), **parts)


@dataclass(frozen=True)
class Split:
    """One part goes through the body, the other passes; joined again, in either order. A single unit is not split."""

    body: Body
    kind: str
    swapped: bool

    def width(self, c: int) -> int:
        return c - self._first(c) + body_width(self.body, self._first(c))

    def build(self, c: int, axis: int) -> nn.Module:
        inner = chain(self.body, self._first(c), axis)
        return inner if c == 1 else Fn(lambda m, x: self._join(m, x, c, axis), inner=inner)

    def _first(self, c: int) -> int:
        return max(1, -(-c // 2) if self.kind == "chunk" else c // 4)

    def _join(self, m: nn.Module, x: Tensor, c: int, axis: int) -> Tensor:
        first = self._first(c)
        if self.kind == "chunk":
            a, b = x.chunk(2, axis)
        elif self.kind == "split":
            a, b = x.split([first, c - first], axis)
        else:
            a, b = x.narrow(axis, 0, first), x.narrow(axis, first, c - first)
        a = m.inner(a)  # type: ignore[operator]
        return torch.cat((b, a) if self.swapped else (a, b), axis)


def network(kind: str, width: int, body: Body, head: str) -> nn.Module:
    """Entry, steps, head."""
    axis = 1 if kind == "image" else -1
    entry = nn.Conv2d(3, width, 3, 2, 1) if kind == "image" else nn.Linear(5, width)
    c = body_width(body, width)
    out = nn.Linear(c * 16 if head == "flatten" else c, 3)
    return nn.Sequential(entry, chain(body, width, axis), Fn(_heads(head), out=out))


def _heads(head: str) -> object:
    return {
        "mean": lambda m, x: m.out(x.mean((2, 3) if x.dim() == 4 else 1)),
        "flatten": lambda m, x: m.out(x.flatten(1)),
        "pool": lambda m, x: m.out(F.adaptive_avg_pool2d(x, 1).flatten(1)),
        "first": lambda m, x: m.out(x[:, 0]),
        "all": lambda m, x: m.out(x),
    }[head]


def _norm(kind: str, c: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(c)
    return nn.GroupNorm(2, c) if kind == "group" else nn.Identity()
