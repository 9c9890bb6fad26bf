"""The moving average of the weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of all floating tensors of a module; the others are the latest.

    Updated every ``EVERY`` steps with the decay to that power, for speed; early steps decay faster so that the start is
    forgotten (Polyak averaging with the warm-up of TensorFlow's ExponentialMovingAverage).
    """

    EVERY = 4

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        if step % self.EVERY:
            return
        decay = min(self.decay**self.EVERY, (1 + step) / (10 + step))
        latest = module.state_dict()
        names = [k for k, v in self.state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.state[k] for k in names], [latest[k] for k in names], 1 - decay)
        for name in self.state.keys() - set(names):
            self.state[name].copy_(latest[name])

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint."""
        for name, value in state.items():
            self.state[name].copy_(value)
