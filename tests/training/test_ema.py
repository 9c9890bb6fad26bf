"""The moving average of the weights."""

import torch
from torch import nn

from compactor.training.ema import Average


def test_it_follows_slowly_and_copies_counters() -> None:
    module = nn.BatchNorm1d(2)
    average = Average(module, 0.99)
    with torch.no_grad():
        module.weight.fill_(2.0)
        module.num_batches_tracked.fill_(5)
    average.update(module, 4)
    decay = min(0.99**4, 5 / 14)
    torch.testing.assert_close(average.state["weight"], torch.full((2,), 1 * decay + 2 * (1 - decay)))
    assert int(average.state["num_batches_tracked"]) == 5


def test_steps_in_between_do_nothing() -> None:
    module = nn.Linear(2, 2)
    average = Average(module, 0.9)
    before = {k: v.clone() for k, v in average.state.items()}
    with torch.no_grad():
        module.weight.zero_()
    average.update(module, 3)
    assert all(torch.equal(before[k], v) for k, v in average.state.items())


def test_of_constant_weights_it_is_the_weights() -> None:
    module = nn.Linear(3, 3)
    average = Average(module, 0.999)
    for step in range(1, 50):
        average.update(module, step)
    torch.testing.assert_close(average.state["weight"], module.weight.detach())
