"""Mobile convolutional networks: inverted residuals, squeeze-and-excite, channel shuffle; images (N, 3, 32, 32)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.resnets import conv_norm

Activation = Callable[[Tensor], Tensor]


class SqueezeExcite(nn.Module):
    """Channel gates from globally pooled features."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


class InvertedResidual(nn.Module):
    """Expand, depthwise, gate, project; residual where the shape allows."""

    def __init__(
        self,
        inside: int,
        hidden: int,
        outside: int,
        stride: int,
        activation: Activation,
        squeeze: int = 0,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.expand = conv_norm(inside, hidden, 1) if hidden != inside else None
        self.depthwise = conv_norm(hidden, hidden, kernel, stride, hidden)
        self.gate = SqueezeExcite(hidden, squeeze) if squeeze else nn.Identity()
        self.project = conv_norm(hidden, outside, 1)
        self.residual = stride == 1 and inside == outside
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.activation(self.expand(x))
        y = self.project(self.gate(self.activation(self.depthwise(y))))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Sandler et al., 2018."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((8, 8, 8, 1), (8, 24, 12, 2), (12, 36, 12, 1), (12, 36, 16, 2), (16, 48, 16, 1))
        self.stem = conv_norm(3, 8, 3, 2)
        self.blocks = nn.Sequential(*(InvertedResidual(*size, F.relu6) for size in sizes))
        self.last = conv_norm(16, 40, 1)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(40, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.last(self.blocks(F.relu6(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class MobileNetV3(nn.Module):
    """Howard et al., 2019: hard swish, squeeze-and-excite, a hidden layer in the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 8, 3, 2)
        self.blocks = nn.Sequential(
            InvertedResidual(8, 8, 8, 1, F.relu, squeeze=8),
            InvertedResidual(8, 24, 12, 2, F.relu),
            InvertedResidual(12, 36, 12, 1, F.relu, squeeze=8),
            InvertedResidual(12, 36, 16, 2, F.hardswish, squeeze=8, kernel=5),
            InvertedResidual(16, 48, 16, 1, F.hardswish, squeeze=16, kernel=5),
        )
        self.last = conv_norm(16, 40, 1)
        self.head = nn.Sequential(nn.Linear(40, 48), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(48, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.last(self.blocks(F.hardswish(self.stem(x)))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the other half is transformed; both are concatenated and shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = conv_norm(half, half, 1)
        self.depthwise = conv_norm(half, half, 3, 1, half)
        self.leave = conv_norm(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        changed = F.relu(self.leave(self.depthwise(F.relu(self.enter(changed)))))
        x = torch.cat((kept, changed), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleNet(nn.Module):
    """Ma et al., 2018, version 2, one stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, 2)
        self.units = nn.Sequential(ShuffleUnit(16), ShuffleUnit(16))
        self.last = conv_norm(16, 24, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.last(self.units(F.relu(self.stem(x)))))
        return self.head(x.mean((2, 3)))
