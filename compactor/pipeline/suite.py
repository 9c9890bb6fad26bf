"""Random small networks to time on a device: every kind of kernel at many sizes, in the company it has in real ones.

No architecture is rebuilt here: blocks of the usual kinds are drawn, with widths, depths and input sizes, by seed.
"""

from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)
LARGEST = 6e8
"""Multiply-accumulates of the largest network: tens of milliseconds on a small CPU."""


def network(seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network with random weights, in evaluation mode, and inputs for a batch of 2; the same for the same seed."""
    draw = Random(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, inputs = (_tokens if draw.random() < 0.4 else _images)(draw)
    return module.eval(), inputs


def _images(draw: Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    size = draw.choice((24, 32, 32, 48, 64, 96, 128, 160, 224))
    stride = draw.choice((1, 2) if size <= 48 else (2, 4))
    # Half of them have widths as searches and pruning leave them: no runtime's vectors divide these.
    odd = draw.random() < 0.5
    width = draw.randint(6, 64) if odd else draw.choice((8, 12, 16, 16, 24, 32, 48, 64))
    act = draw.choice(_ACTIVATIONS)
    layers: list[nn.Module] = [_conv(3, width, draw.choice((3, 4, 5, 7)), stride, act)]
    side, budget = size // stride, LARGEST
    make = draw.choice(_BLOCKS)
    for _ in range(draw.randint(2, 4)):
        for _ in range(draw.randint(1, 4)):
            block = (make if draw.random() < 0.7 else draw.choice(_BLOCKS))(draw, width, act)
            cost = sum(p.numel() for p in block.parameters()) * side * side
            if cost < budget:
                budget -= cost
                layers.append(block)
        if side < 6:
            break
        wider = min(512, int(width * draw.choice((1, 1.5, 2, 2))))
        wider = wider + draw.randint(-3, 3) if odd else wider // 4 * 4
        layers.append(_down(draw, width, wider, act))
        width, side = wider, (side + 1) // 2
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, draw.choice((2, 10, 100, 1000)))]
    return nn.Sequential(*layers, *head), (torch.randn(2, 3, size, size),)


def _conv(a: int, b: int, k: int, stride: int, act: Callable[[], nn.Module] | None, groups: int = 1) -> nn.Module:
    layers = [nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(b)]
    return nn.Sequential(*layers, *([act()] if act is not None else []))


def _down(draw: Random, a: int, b: int, act: Callable[[], nn.Module]) -> nn.Module:
    kind = draw.randrange(4)
    if kind == 0:
        return nn.Sequential(nn.MaxPool2d(3, 2, 1), _conv(a, b, 1, 1, act))
    if kind == 1:
        return nn.Sequential(_conv(a, a, 3, 2, act, groups=a), _conv(a, b, 1, 1, None))
    return _conv(a, b, draw.choice((1, 2, 3, 3)), 2, act)


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.body, self.last = body, last

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(x + self.body(x))
        return result


class _Squeeze(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.b(F.relu(self.a(x.mean((2, 3), keepdim=True)))))


class _Joined(nn.Module):
    def __init__(self, branches: list[nn.Module], last: nn.Module) -> None:
        super().__init__()
        self.branches, self.last = nn.ModuleList(branches), last

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(torch.cat([b(x) for b in self.branches], 1))
        return result


class _Channelwise(nn.Module):
    """Depthwise, then norm and a feed-forward pair over the channels, last in memory."""

    def __init__(self, width: int, kernel: int, ratio: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, 1, kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        result: Tensor = x + self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return result


def _plain(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    return _conv(width, width, draw.choice((1, 3, 3, 5)), 1, act)


def _basic(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    return _Residual(nn.Sequential(_conv(width, width, 3, 1, act), _conv(width, width, 3, 1, None)), act())


def _bottleneck(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    inner = max(4, width // draw.choice((1, 2, 4)) - draw.choice((0, 0, width % 3)))
    groups = draw.choice([g for g in (1, 1, 2, 4, inner // 16, inner // 8) if g and inner % g == 0])
    body = (_conv(width, inner, 1, 1, act), _conv(inner, inner, 3, 1, act, groups), _conv(inner, width, 1, 1, None))
    return _Residual(nn.Sequential(*body), act())


def _inverted(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    inner = width * draw.choice((2, 3, 4, 6)) - draw.choice((0, 0, draw.randrange(width)))
    kernel = draw.choice((3, 3, 5, 7))
    middle = [_Squeeze(inner, max(4, inner // draw.choice((4, 8))))] if draw.random() < 0.4 else []
    body = (_conv(width, inner, 1, 1, act), _conv(inner, inner, kernel, 1, act, inner), *middle)
    return _Residual(nn.Sequential(*body, _conv(inner, width, 1, 1, None)), nn.Identity())


def _joined(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    inner = max(4, width // 4 * draw.choice((1, 2)) // 4 * 4)
    branches = [nn.Identity(), *(_conv(width, inner, draw.choice((1, 3)), 1, act) for _ in range(draw.randint(1, 3)))]
    return _Joined(branches, _conv(width + inner * (len(branches) - 1), width, 1, 1, act))


def _channelwise(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    return _Channelwise(width, draw.choice((3, 5, 7)), draw.choice((2, 4)))


def _normed(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    """1x1 convolutions behind a norm that stays at inference."""
    inner = width * draw.choice((1, 2, 4))
    norm = nn.GroupNorm(draw.choice([g for g in (1, 1, 2, 4) if width % g == 0]), width)
    return _Residual(nn.Sequential(norm, nn.Conv2d(width, inner, 1), act(), nn.Conv2d(inner, width, 1)), nn.Identity())


def _pooled(draw: Random, width: int, act: Callable[[], nn.Module]) -> nn.Module:
    size = draw.choice((3, 3, 5))
    pool = draw.choice((nn.AvgPool2d, nn.MaxPool2d))(size, 1, size // 2)
    return _Residual(nn.Sequential(pool, _conv(width, width, 1, 1, None)), act())


_BLOCKS = (_plain, _basic, _bottleneck, _inverted, _inverted, _joined, _channelwise, _normed, _pooled)


def _tokens(draw: Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    odd = draw.random() < 0.5
    width = draw.randint(48, 512) if odd else draw.choice((48, 64, 96, 128, 192, 256, 312, 384, 512))
    length = draw.choice((16, 24, 32, 48, 64, 96, 128, 196))
    heads = draw.randint(1, 12) if odd else draw.choice([h for h in (1, 2, 3, 4, 6, 8, 12) if width % h == 0])
    attended = heads * draw.choice((16, 24, 32, 32, 64)) if odd else width
    layers, budget = [], LARGEST
    inner = int(width * (draw.uniform(1, 4) if odd else draw.choice((1, 2, 3, 4))))
    options = (draw.random() < 0.5, draw.choice((F.gelu, F.gelu, F.relu, F.silu)), draw.random() < 0.25)
    fewer = draw.choice((1, 1, 1, 2, 4)) if length >= 32 else 1
    sizes = (width, attended, inner)
    groups = draw.choice([g for g in (0, 0, 0, 0, 1, 2, 4) if not g or not any(n % g for n in sizes)])
    for _ in range(draw.randint(1, 6)):
        layer = _Layer(sizes, heads, *options, fewer, groups)
        cost = sum(p.numel() for p in layer.parameters()) * length
        if cost < budget:
            budget -= cost
            layers.append(layer)
    classes = draw.choice((2, 10, 100))
    if draw.random() < 0.4:
        patch = draw.choice((4, 8, 16))
        side = max(2, int(length**0.5))
        return _Patches(width, patch, layers, classes), (torch.randn(2, 3, side * patch, side * patch),)
    vocabulary = draw.choice((500, 2000, 8000))
    return _Words(width, vocabulary, length, layers, classes), (torch.randint(0, vocabulary, (2, length)),)


class _Alone(nn.Module):
    """A product over channels as a convolution over positions, in groups."""

    def __init__(self, a: int, b: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(a, b, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return result


class _Layer(nn.Module):
    """Self-attention and a feed-forward pair, normed before or after, gated or not; ``sizes`` are the residual width,
    that of all heads together, and that in the feed-forward pair.

    Keys and values may be ``fewer``, by a strided convolution; with ``groups`` products are convolutions.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int],
        heads: int,
        before: bool,
        act: Callable[[Tensor], Tensor],
        gated: bool,
        fewer: int,
        groups: int,
    ) -> None:
        super().__init__()

        def product(a: int, b: int) -> nn.Module:
            return _Alone(a, b, groups) if groups else nn.Linear(a, b)

        width, attended, inner = sizes
        self.heads, self.before, self.act = heads, before, act
        self.q, self.k, self.v = (product(width, attended) for _ in range(3))
        self.out = product(attended, width)
        self.up, self.down = product(width, inner), product(inner, width)
        self.gate = nn.Linear(width, inner) if gated else None
        self.fewer = nn.Conv1d(width, width, fewer, fewer) if fewer > 1 else None
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self._attend(self.first(x))
            return x + self._feed(self.second(x))
        x = self.first(x + self._attend(x))
        result: Tensor = self.second(x + self._feed(x))
        return result

    def _attend(self, x: Tensor) -> Tensor:
        kept = x if self.fewer is None else self.fewer(x.transpose(1, 2)).transpose(1, 2)
        pairs = ((self.q, x), (self.k, kept), (self.v, kept))
        q, k, v = (p(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p, y in pairs)
        result: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return result

    def _feed(self, x: Tensor) -> Tensor:
        y = self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)
        result: Tensor = self.down(y)
        return result


class _Words(nn.Module):
    def __init__(self, width: int, vocabulary: int, length: int, layers: Sequence[nn.Module], classes: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(length, width))
        self.norm, self.layers, self.head = nn.LayerNorm(width), nn.Sequential(*layers), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.layers(self.norm(self.words(x) + self.places))[:, 0])
        return result


class _Patches(nn.Module):
    def __init__(self, width: int, patch: int, layers: Sequence[nn.Module], classes: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.layers, self.norm, self.head = nn.Sequential(*layers), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        result: Tensor = self.head(self.norm(self.layers(tokens)).mean(1))
        return result
