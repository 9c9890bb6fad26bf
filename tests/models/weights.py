"""Weights that hide nothing: no norm at its identity, no bias or running statistic at its initial value."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter and running statistic so that activations stay near unit scale; returns the module in eval.

    Matrices are fan-in scaled, embeddings N(0, 0.5), scales uniform in 0.5..1.5, biases and running means N(0, 0.2),
    running variances uniform in 0.5..2.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            _fill(parameter, name, id(parameter) in tables, generator)
        for norm in (m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None):
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
    return module.eval()


def _fill(parameter: Tensor, name: str, table: bool, generator: torch.Generator) -> None:
    if name.endswith("bias"):
        parameter.normal_(0, 0.2, generator=generator)
    elif parameter.numel() == max(parameter.shape):
        parameter.uniform_(0.5, 1.5, generator=generator)
    elif table or "token" in name or "position" in name:
        parameter.normal_(0, 0.5, generator=generator)
    else:
        fan_in = parameter.numel() // parameter.shape[0]
        parameter.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
