"""Small convolutional networks written by hand; images are (N, 3, 32, 32) unless a class says otherwise."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Padded convolution, batch norm, ReLU."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU())


class VGG(nn.Module):
    """Simonyan and Zisserman, 2015: plain convolutions, a flattened map, fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 16), conv(16, 16), nn.MaxPool2d(2), conv(16, 24), nn.MaxPool2d(2), conv(24, 32), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class Fire(nn.Module):
    """A narrow 1x1 layer, then 1x1 and 3x3 side by side."""

    def __init__(self, inside: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inside, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    """Iandola et al., 2016: fire modules, classes straight from a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.fires = nn.Sequential(Fire(16, 8, 12), Fire(24, 8, 16), nn.MaxPool2d(2), Fire(32, 12, 24))
        self.classes = nn.Conv2d(48, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.fires(F.relu(self.stem(x)))).mean((2, 3))


class Mixed(nn.Module):
    """An Inception-v3 module: 1x1, a factorised 7x7 (1x7 then 7x1), a pooled branch."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.point = conv(inside, 8, 1)
        self.reduce = conv(inside, 6, 1)
        self.row = nn.Conv2d(6, 8, (1, 7), padding=(0, 3))
        self.column = nn.Conv2d(8, 12, (7, 1), padding=(3, 0))
        self.pooled = conv(inside, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = F.relu(self.column(F.relu(self.row(self.reduce(x)))))
        return torch.cat((self.point(x), seven, self.pooled(F.avg_pool2d(x, 3, 1, 1))), 1)


class Inception(nn.Module):
    """Szegedy et al., 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(3, 16, 3, 2), Mixed(16), nn.MaxPool2d(3, 2, 1), Mixed(24), nn.Dropout())
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


class DenseLayer(nn.Module):
    """Norm, bottleneck, norm, convolution; its result is appended to its input."""

    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inside), nn.BatchNorm2d(2 * growth)
        self.reduce = nn.Conv2d(inside, 2 * growth, 1, bias=False)
        self.conv = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.relu(self.norm2(self.reduce(F.relu(self.norm1(x))))))
        return torch.cat((x, y), 1)


class DenseNet(nn.Module):
    """Huang et al., 2017: two dense blocks with bottlenecks and a transition."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            *(DenseLayer(16 + 8 * i, 8) for i in range(3)),
            conv(40, 20, 1),
            nn.AvgPool2d(2),
            *(DenseLayer(20 + 8 * i, 8) for i in range(2)),
            nn.BatchNorm2d(36),
        )
        self.head = nn.Linear(36, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.features(x)).mean((2, 3)))


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, depthwise 3x3, grouped 1x1, residual."""

    def __init__(self, channels: int, middle: int, groups: int) -> None:
        super().__init__()
        self.enter = conv(channels, middle, 1, groups=groups)
        self.shuffle = nn.ChannelShuffle(groups)
        self.depthwise = nn.Conv2d(middle, middle, 3, padding=1, groups=middle)
        self.leave = nn.Conv2d(middle, channels, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.leave(self.depthwise(self.shuffle(self.enter(x)))))


class ShuffleNet(nn.Module):
    """Zhang et al., 2018, version 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, 24, 3, 2), ShuffleUnit(24, 12, 3), ShuffleUnit(24, 12, 3))
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class ResNeXtBlock(nn.Module):
    """1x1, grouped 3x3, 1x1, and the input again."""

    def __init__(self, inside: int, middle: int, outside: int, stride: int, groups: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inside, middle, 1),
            conv(middle, middle, 3, stride, groups),
            nn.Conv2d(middle, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        project = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.shortcut = project if stride > 1 or inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNeXt(nn.Module):
    """Xie et al., 2017."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((16, 16, 32, 1), (32, 16, 32, 1), (32, 32, 48, 2), (48, 32, 48, 1))
        self.features = nn.Sequential(conv(3, 16), *(ResNeXtBlock(*size) for size in sizes))
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excite, project."""

    def __init__(self, inside: int, hidden: int, outside: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(inside, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish()
        )
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, 8, 1), nn.ReLU(), nn.Conv2d(8, hidden, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(hidden, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = self.project(y * self.excite(y))
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """Howard et al., 2019."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((12, 24, 12, 1), (12, 36, 16, 2), (16, 48, 16, 1), (16, 48, 24, 2), (24, 72, 24, 1))
        self.features = nn.Sequential(conv(3, 12, 3, 2), *(InvertedResidual(*size) for size in sizes), conv(24, 64, 1))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Ghost(nn.Module):
    """Half of the channels from a convolution, the other half from cheap depthwise ones over the first."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.primary = conv(inside, outside // 2, 1)
        self.cheap = conv(outside // 2, outside // 2, 3, groups=outside // 2)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], dim=1)


class GhostNet(nn.Module):
    """Han et al., 2020: ghost bottlenecks with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        self.enter = nn.ModuleList(Ghost(16, 32) for _ in range(2))
        self.leave = nn.ModuleList(Ghost(32, 16) for _ in range(2))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for enter, leave in zip(self.enter, self.leave, strict=True):
            x = x + leave(enter(x))
        return self.head(x.mean((2, 3)))


class SelectiveKernel(nn.Module):
    """Two kernel sizes, mixed per channel by a softmax over the branches; residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.three, self.five = conv(channels, channels), conv(channels, channels, 5)
        self.reduce = nn.Linear(channels, 8)
        self.scores = nn.ModuleList(nn.Linear(8, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack([self.three(x), self.five(x)], 1)
        pooled = F.relu(self.reduce(branches.sum(1).mean((2, 3))))
        weights = torch.stack([score(pooled) for score in self.scores], 1).softmax(1)
        return x + (branches * weights[:, :, :, None, None]).sum(1)


class SelectiveKernelNet(nn.Module):
    """Li et al., 2019."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, 16, 3, 2), SelectiveKernel(16), conv(16, 24, 3, 2), SelectiveKernel(24))
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))
