"""Residual networks: both shortcut kinds, basic, bottleneck and grouped blocks; images (N, 3, 32, 32)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A padded convolution without bias and its batch norm."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class Basic(nn.Module):
    """Two 3x3 convolutions; the shortcut is option A (strided slice and channel padding) or B (1x1 convolution)."""

    def __init__(self, inside: int, outside: int, stride: int, option: str) -> None:
        super().__init__()
        self.first = conv_norm(inside, outside, stride=stride)
        self.second = conv_norm(outside, outside)
        changes = stride != 1 or inside != outside
        self.pad = (outside - inside) // 2 if changes and option == "A" else 0
        self.stride = stride
        self.project = conv_norm(inside, outside, 1, stride) if changes and option == "B" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(self.project(x) + y)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in a ResNeXt), 1x1."""

    def __init__(self, inside: int, middle: int, outside: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.reduce = conv_norm(inside, middle, 1)
        self.spatial = conv_norm(middle, middle, 3, stride, groups)
        self.expand = conv_norm(middle, outside, 1)
        changes = stride != 1 or inside != outside
        self.project = conv_norm(inside, outside, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(F.relu(self.spatial(F.relu(self.reduce(x)))))
        return F.relu(self.project(x) + y)


class ResNet(nn.Module):
    """A stem, blocks, a head. ``pool`` adds the max pooling of the ImageNet stem; ``normalize`` the input scaling."""

    def __init__(self, blocks: list[nn.Module], inside: int, outside: int, *, pool: bool, normalize: bool) -> None:
        super().__init__()
        self.stem = conv_norm(3, inside)
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(outside, 10)
        self.normalize = normalize
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.normalize:
            x = (x - self.mean) / self.std
        x = self.blocks(self.pool(F.relu(self.stem(x))))
        if self.normalize:
            return self.head(x.mean((2, 3)))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def option_a() -> nn.Module:
    """The CIFAR ResNet of He et al., 2016, with normalisation inside and parameter-free shortcuts."""
    blocks: list[nn.Module] = [Basic(i, o, s, "A") for i, o, s in ((8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2))]
    return ResNet(blocks, 8, 32, pool=False, normalize=True)


def option_b() -> nn.Module:
    """An ImageNet-style ResNet of basic blocks with projected shortcuts."""
    blocks: list[nn.Module] = [Basic(i, o, s, "B") for i, o, s in ((8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2))]
    return ResNet(blocks, 8, 32, pool=True, normalize=False)


def bottleneck() -> nn.Module:
    """A ResNet of bottleneck blocks."""
    sizes = ((8, 4, 16, 1), (16, 4, 16, 1), (16, 8, 32, 2), (32, 8, 32, 1))
    return ResNet([Bottleneck(*size) for size in sizes], 8, 32, pool=True, normalize=False)


def resnext() -> nn.Module:
    """Bottlenecks whose 3x3 convolution has four groups."""
    sizes = ((8, 16, 16, 1), (16, 16, 16, 1), (16, 32, 32, 2), (32, 32, 32, 1))
    return ResNet([Bottleneck(*size, groups=4) for size in sizes], 8, 32, pool=False, normalize=False)
