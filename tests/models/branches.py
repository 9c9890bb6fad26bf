"""Networks whose axes join and part: concatenation, parallel branches, group norm, several inputs and outputs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.resnets import conv_norm


class DenseNet(nn.Module):
    """Huang et al., 2017: each layer sees the concatenation of all before it, norm before convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, 1, 1, bias=False) for i in range(3))
        self.transition = conv_norm(20, 12, 1)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        x = F.avg_pool2d(F.relu(self.transition(torch.cat(features, 1))), 2)
        return self.head(x.mean((2, 3)))


class Inception(nn.Module):
    """Parallel convolutions of different widths and a pooled branch, concatenated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 12, 3, 2)
        self.point = conv_norm(12, 8, 1)
        self.three = nn.Sequential(conv_norm(12, 6, 1), nn.ReLU(), conv_norm(6, 10, 3))
        self.five = nn.Sequential(conv_norm(12, 4, 1), nn.ReLU(), conv_norm(4, 6, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm(12, 8, 1))
        self.merge = conv_norm(32, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(torch.cat([self.point(x), self.three(x), self.five(x), self.pooled(x)], 1))
        return self.head(F.relu(self.merge(x)).mean((2, 3)))


class GroupNormNet(nn.Module):
    """Residual blocks with group norm and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(4, 16) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(2))
        self.head = nn.Linear(16 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norms[0](self.stem(x)))
        for conv, norm in zip(self.convs, list(self.norms)[1:], strict=True):
            x = x + F.silu(norm(conv(x)))
        return self.head(torch.flatten(F.avg_pool2d(x, 4), 1))


class TwoTowers(nn.Module):
    """An image and a feature vector in; class logits, a reconstruction and an embedding out."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(conv_norm(3, 12, 3, 2), nn.ReLU(), conv_norm(12, 16, 3, 2))
        self.features = nn.Sequential(nn.Linear(6, 20), nn.GELU(), nn.Linear(20, 16))
        self.joint = nn.Linear(32, 24)
        self.classes = nn.Linear(24, 5)
        self.reconstruction = nn.Linear(24, 6)

    def forward(self, image: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedded = self.features(features)
        seen = F.relu(self.image(image)) * torch.sigmoid(embedded)[:, :, None, None]
        joint = F.relu(self.joint(torch.cat((seen.mean((2, 3)), embedded), -1)))
        return self.classes(joint), self.reconstruction(joint), F.normalize(embedded, dim=-1)
