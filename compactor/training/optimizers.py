"""The optimizers of the engine, in their fastest form."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn, optim

from compactor.training.config import TrainConfig

_OWN = {"fixed": True, "eps": 1e-15}
"""Gates that are nearly open or closed have gradients far below the eps of AdamW."""


def build(
    named: Iterable[tuple[str, nn.Parameter]], config: TrainConfig, rates: Mapping[str, float] | None = None
) -> optim.Optimizer:
    """AdamW or SGD with Nesterov momentum; vectors (norms, biases) are not decayed.

    Parameters named in ``rates`` keep that learning rate from the first step to the last and are not decayed.
    """
    parameters = {name: p for name, p in named if p.requires_grad}
    own = rates or {}
    scheduled = [p for name, p in parameters.items() if name not in own]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in scheduled if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in scheduled if p.dim() <= 1], "weight_decay": 0.0},
        *({"params": [parameters[name]], "weight_decay": 0.0, "lr": rate, **_OWN} for name, rate in own.items()),
    ]
    groups = [g for g in groups if g["params"]]
    if config.optimizer == "adamw":
        return optim.AdamW(groups, lr=config.lr, fused=True)
    return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """The learning rate of every group that follows the schedule."""
    for group in optimizer.param_groups:
        if not group.get("fixed"):
            group["lr"] = rate
