"""What is laid out channels-last."""

import torch
from torch import nn

from compactor.training.precision import channels_last


def test_only_filters_are_laid_out_anew() -> None:
    """Windowed attention has 5-D masks, which have no such layout."""
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv3d(2, 4, 3))
    module.register_buffer("mask", torch.zeros(1, 4, 1, 7, 7))
    values = {name: value.clone() for name, value in module.state_dict().items()}
    parameters = list(module.parameters())
    channels_last(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())
