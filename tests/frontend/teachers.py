"""Factories, good and bad."""

import torch
from torch import nn

from tests.frontend import planted

WIDTH = 4


def small() -> tuple[nn.Module, torch.Tensor]:
    """The module with its example inputs."""
    return planted.small(), torch.zeros(1, WIDTH)


def convolutional() -> nn.Module:
    """An image classifier whose input size nobody tells."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def fails() -> nn.Module:
    """Raises."""
    raise FileNotFoundError("no such weights")


def returns_text() -> str:
    """Not a module."""
    return "module"
