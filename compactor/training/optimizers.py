"""The optimizers of the engine, in their fastest form."""

from collections.abc import Iterable

from torch import nn, optim

from compactor.training.config import TrainConfig


def build(named: Iterable[tuple[str, nn.Parameter]], config: TrainConfig) -> optim.Optimizer:
    """AdamW or SGD with Nesterov momentum; vectors (norms, biases) are not decayed."""
    parameters = [p for _, p in named if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if config.optimizer == "adamw":
        return optim.AdamW(groups, lr=config.lr, fused=True)
    return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def set_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """The learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
