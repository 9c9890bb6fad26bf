"""Small networks written by hand whose outputs are images, maps or several tensors."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.coverage.convolutional import conv


class UNet(nn.Module):
    """Ronneberger et al., 2015: transposed convolutions up, skip connections concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(3, 12), conv(12, 24)])
        self.bottom = nn.Sequential(conv(24, 32), conv(32, 32))
        self.rise = nn.ModuleList([nn.ConvTranspose2d(32, 24, 2, 2), nn.ConvTranspose2d(24, 12, 2, 2)])
        self.up = nn.ModuleList([conv(48, 24), conv(24, 12)])
        self.classes = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for layer in self.down:
            x = layer(x)
            skipped.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for rise, layer in zip(self.rise, self.up, strict=True):
            x = layer(torch.cat((skipped.pop(), rise(x)), 1))
        return self.classes(x)


class SuperResolution(nn.Module):
    """Lim et al., 2017 (EDSR): residual blocks without norms, pixel shuffle to twice the size."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 16, 3, padding=1)
        self.bodies = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1)) for _ in range(2)
        )
        self.up = nn.Sequential(nn.Conv2d(16, 48, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(12, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = features = self.head(x)
        for body in self.bodies:
            x = x + 0.5 * body(x)
        return self.up(features + x)


class DenseResidual(nn.Module):
    """Three convolutions over all before them, with a scaled residual around."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels + i * growth, growth, 3, padding=1) for i in range(2))
        self.last = nn.Conv2d(channels + 2 * growth, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        values = x
        for layer in self.convs:
            values = torch.cat((values, F.leaky_relu(layer(values), 0.2)), 1)
        return x + 0.2 * self.last(values)


class ResidualInResidual(nn.Module):
    """Wang et al., 2018 (ESRGAN): residual blocks inside a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.outer = nn.ModuleList(nn.Sequential(*(DenseResidual(16, 8) for _ in range(2))) for _ in range(2))
        self.leave = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.outer:
            x = x + 0.2 * block(x)
        return self.leave(F.interpolate(x, scale_factor=2, mode="nearest"))


class CrossStage(nn.Module):
    """Half of the channels goes through residual bottlenecks; all stages are concatenated (C2f of YOLOv8)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.enter, self.leave = conv(inside, outside, 1), conv(2 * outside, outside, 1)
        half = outside // 2
        self.bottlenecks = nn.ModuleList(nn.Sequential(conv(half, half), conv(half, half)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        values = list(self.enter(x).chunk(2, 1))
        for bottleneck in self.bottlenecks:
            values.append(values[-1] + bottleneck(values[-1]))
        return self.leave(torch.cat(values, 1))


class Detector(nn.Module):
    """A one-stage detector: cross-stage blocks, pyramid pooling, boxes and classes of every cell in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv(3, 12, 3, 2), CrossStage(12, 16), conv(16, 24, 3, 2), CrossStage(24, 24))
        self.reduce, self.merge = conv(24, 12, 1), conv(48, 24, 1)
        self.boxes = nn.Sequential(conv(24, 16), nn.Conv2d(16, 4, 1))
        self.classes = nn.Sequential(conv(24, 16), nn.Conv2d(16, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.reduce(self.backbone(x))]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        x = self.merge(torch.cat(pooled, 1))
        return torch.cat((self.boxes(x), self.classes(x).sigmoid()), 1).flatten(2).transpose(1, 2)


class FeaturePyramid(nn.Module):
    """Lin et al., 2017: residual stages, a top-down path of sums, one output per scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 12, 3, 2)
        self.stages = nn.ModuleList(nn.Sequential(conv(12, 16), conv(16, 12)) for _ in range(3))
        self.lateral = nn.ModuleList(nn.Conv2d(12, 16, 1) for _ in range(3))
        self.smooth = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.classes = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = x + stage(x)
            maps.append(x)
            x = F.max_pool2d(x, 2)
        top, results = None, []
        for value, lateral, smooth in zip(maps[::-1], self.lateral, self.smooth, strict=True):
            top = lateral(value) if top is None else lateral(value) + F.interpolate(top, scale_factor=2.0)
            results.append(self.classes(F.relu(smooth(top))))  # one head for all scales
        return tuple(results)
