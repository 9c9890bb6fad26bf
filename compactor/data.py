"""What passes know of data: map-style splits that hand out batches in the Program's input format."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compactor.errors import InputError


@dataclass(frozen=True)
class Batch:
    """One batch: ``inputs`` in the order and dtypes of the Program's inputs; ``labels`` (N,) int64, or None."""

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None


class Split(Protocol):
    """A finite set of samples. ``take`` is deterministic: the same indices give the same batch."""

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 over content, preprocessing included."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Batch:
        """The batch of these samples, in this order. ``indices``: (N,) int64."""
        ...


def lengths_of(split: Split) -> Tensor | None:
    """(N,) lengths of all samples, where the split has ``lengths``."""
    lengths = getattr(split, "lengths", None)
    return None if lengths is None else torch.as_tensor(lengths)


def shortest_first(split: Split) -> Tensor:
    """(N,) indices of all samples; in order of their lengths where the split has them, so that padding is short."""
    lengths = lengths_of(split)
    return torch.arange(len(split)) if lengths is None else torch.argsort(lengths, stable=True)


def by_sample(values: Tensor, order: Tensor) -> Tensor:
    """(N, ...): values of samples that came in this order, (N,), in that of the split."""
    return torch.empty_like(values).index_copy_(0, order, values)


@dataclass(frozen=True)
class DataSource:
    """The splits of one data set. ``dev`` is for selection, ``test`` for the reported score only.

    ``dev`` is set aside from ``train`` where the data has none. ``synthetic``: made up, so scores are unverified.
    ``classes`` are the label names in the order of the teacher's logits, when known.
    """

    train: Split
    dev: Split
    test: Split | None
    classes: tuple[str, ...] | None = None
    synthetic: bool = False

    @property
    def fingerprint(self) -> str:
        """sha256 over the splits."""
        import hashlib

        parts = [s.fingerprint for s in (self.train, self.dev, self.test) if s is not None]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def calibration(self, n: int, seed: int) -> Batch:
        """``n`` samples of ``train`` by seed, as one batch. Raises `InputError` for one that is not finite."""
        generator = torch.Generator().manual_seed(seed)
        indices = torch.randperm(len(self.train), generator=generator)[:n]
        batch = self.train.take(indices)
        for tensor in batch.inputs:
            bad = ~tensor.isfinite().flatten(1).all(1) if tensor.dim() > 1 else ~tensor.isfinite()
            if bad.any():
                raise InputError(
                    f"sample {int(indices[bad][0])} of the training data holds NaN or infinite values"
                    f" ({int(bad.sum())} of {len(indices)} drawn do)",
                    "remove these samples from the data",
                )
        return batch
