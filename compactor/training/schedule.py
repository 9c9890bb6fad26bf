"""The learning rate over a run, and the order of the samples."""

import math

import torch
from torch import Tensor

_POOL = 64


def cosine(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at ``step`` of ``total``: linear warm-up, then half a cosine (SGDR, section 3)."""
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def mix(*numbers: int) -> int:
    """One seed out of several numbers (splitmix64 finaliser), so that neighbours are unrelated."""
    value = 0
    for number in numbers:
        value = (value + (number & (1 << 64) - 1) + 0x9E3779B97F4A7C15) & (1 << 64) - 1
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & (1 << 64) - 1
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & (1 << 64) - 1
        value ^= value >> 31
    return value >> 1


def generator(*numbers: int) -> torch.Generator:
    """A generator seeded by several numbers."""
    return torch.Generator().manual_seed(mix(*numbers))


def noise(seed: int, *counters: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float64, each a function of the seed and its own counters (int64, broadcast)."""
    value: Tensor = torch.tensor(mix(seed))
    for counter in counters:
        value = value + counter * -0x61C8864680B583EB
        for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
            value = (value ^ (value >> shift & (1 << 64 - shift) - 1)) * factor
        value = value ^ (value >> 31 & (1 << 33) - 1)
    return (value >> 11 & (1 << 53) - 1).double() / (1 << 53)


def order(samples: int, batch: int, seed: int, epoch: int, lengths: Tensor | None = None) -> list[Tensor]:
    """Index batches of one epoch, a function of ``(seed, epoch)``; a last short batch is left out.

    With ``lengths`` (N,), samples of like length share a batch, so that padding is short: pools of 64 batches are
    sorted by length, and the batches shuffled.
    """
    batch = min(batch, samples)
    random = generator(seed, epoch)
    shuffled = torch.randperm(samples, generator=random)[: samples // batch * batch]
    if lengths is None:
        return list(torch.split(shuffled, batch))
    pools = [pool[torch.argsort(lengths[pool], stable=True)] for pool in torch.split(shuffled, batch * _POOL)]
    batches = [indices for pool in pools for indices in torch.split(pool, batch)]
    return [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]
