"""Small models written by hand that join kinds: several inputs, conditions, convolutions inside transformers."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.coverage.convolutional import conv
from benchmarks.coverage.sequential import Attention, mlp


class TwoInputs(nn.Module):
    """An image (N, 3, 32, 32) and a feature vector (N, 6): two towers, concatenated and classified."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(conv(3, 12, 3, 2), conv(12, 16, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = mlp(6, 20, 16)
        self.joint = mlp(32, 24, 5)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return self.joint(F.relu(torch.cat((self.image(image), self.features(features)), 1)))


class EncoderDecoder(nn.Module):
    """Vaswani et al., 2017: source and target tokens in, cross attention between."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.positions = nn.Parameter(torch.zeros(12, 32))
        self.encode, self.decode, self.cross = (Attention(32, 4) for _ in range(3))
        self.feeds = nn.ModuleList(mlp(32, 48) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(5))
        self.head = nn.Linear(32, 50)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        x = self.words(source) + self.positions
        x = self.norms[0](x + self.encode(x))
        x = self.norms[1](x + self.feeds[0](x))
        y = self.words(target) + self.positions
        y = self.norms[2](y + self.decode(y, causal=True))
        y = self.norms[3](y + self.cross(y, x))
        y = self.norms[4](y + self.feeds[1](y))
        return self.head(y)


class Conformer(nn.Module):
    """Gulati et al., 2020: half feed-forward, attention, gated depthwise convolution, half feed-forward."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.first, self.last = mlp(width, 48), mlp(width, 48)
        self.mixer = Attention(width, 4)
        self.enter = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, 5, padding=2, groups=width)
        self.norm = nn.BatchNorm1d(width)
        self.leave = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.first(self.norms[0](x))
        x = x + self.mixer(self.norms[1](x))
        y = F.glu(self.enter(self.norms[2](x).transpose(1, 2)), 1)
        x = x + self.leave(F.silu(self.norm(self.depthwise(y)))).transpose(1, 2)
        x = x + 0.5 * self.last(self.norms[3](x))
        return self.norms[4](x)


class SpeechEncoder(nn.Module):
    """Two Conformer blocks over frames (N, 12, 10), a class per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 32), Conformer(), Conformer(), nn.Linear(32, 20))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).log_softmax(-1)


class Conditioned(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by the condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.mixer, self.feed = Attention(width, 4), mlp(width, 48)
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        parts = self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, -1)
        x = x + parts[2] * self.mixer(self.norm1(x) * (1 + parts[1]) + parts[0])
        return x + parts[5] * self.feed(self.norm2(x) * (1 + parts[4]) + parts[3])


class DiffusionTransformer(nn.Module):
    """Peebles and Xie, 2023 (DiT): noisy image (N, 3, 32, 32) and time (N,) in, noise out."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.positions = nn.Parameter(torch.zeros(1, 16, 32))
        self.time = mlp(16, 32)
        self.enter = nn.Linear(16, 32)
        self.blocks = nn.ModuleList(Conditioned(32) for _ in range(2))
        self.norm, self.out = nn.LayerNorm(32), nn.Linear(32, 3 * 8 * 8)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * torch.exp(-math.log(100.0) * torch.arange(8) / 8)
        condition = self.enter(self.time(torch.cat((angles.cos(), angles.sin()), -1)))
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x, condition)
        x = self.out(self.norm(x)).view(-1, 4, 4, 8, 8, 3)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 32, 32)
