"""Variants of samples for a teacher to label: images mixed, token sequences reworded and joined."""

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from compactor.data import Batch, Split
from compactor.training.schedule import noise

Inputs = tuple[Tensor, ...]

_PARTNER, _KIND, _SHARE, _DOWN, _RIGHT, _CUT, _WHERE, _WHICH = range(8)


class Variants(ABC):
    """A split, and ``copies`` variants of each of its samples behind it; without labels, for a teacher to give.

    A variant is a function of ``(seed, index)`` alone, so that what the teacher says of it can be kept; ``how`` is all
    else that decides it.
    """

    def __init__(self, split: Split, copies: int, seed: int, how: str = "") -> None:
        self.split, self.copies, self.seed, self._how = split, copies, seed, how

    def __len__(self) -> int:
        return len(self.split) * (1 + self.copies)

    @property
    def labelled(self) -> bool:
        """Never: the true labels of variants are not known."""
        return False

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the split and how it is varied."""
        text = f"{self.split.fingerprint} {type(self).__name__} {self._how} {self.copies} {self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()

    def take(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` (N,); those beyond the split are variants."""
        count = len(self.split)
        varied = indices >= count
        partners = (noise(self.seed, indices[varied], torch.tensor(_PARTNER)) * count).long()
        taken = self.split.take(torch.cat([indices % count, partners])).inputs
        own, others = (tuple(x[part] for x in taken) for part in (slice(len(indices)), slice(len(indices), None)))
        made = self.vary(tuple(x[varied] for x in own), others, indices[varied])
        return Batch(tuple(x.masked_scatter(_like(varied, x), y) for x, y in zip(own, made, strict=True)))

    @abstractmethod
    def vary(self, own: Inputs, others: Inputs, indices: Tensor) -> Inputs:
        """Variants of the samples ``own``, each with another sample to draw from."""

    def _drawn(self, indices: Tensor, what: int) -> Tensor:
        return noise(self.seed, indices, torch.tensor(what))


class Mixed(Variants):
    """Images (N, C, H, W): one half weighted means of two (mixup, arXiv 1710.09412), the other with a box of another
    image in it (CutMix, arXiv 1905.04899); shares are uniform.
    """

    def vary(self, own: Inputs, others: Inputs, indices: Tensor) -> Inputs:
        """The first input mixed."""
        share = self._drawn(indices, _SHARE).float()
        weight = share.view(-1, 1, 1, 1).expand(-1, 1, *own[0].shape[-2:])
        boxed = boxes(1 - share, self._drawn(indices, _DOWN), self._drawn(indices, _RIGHT), *own[0].shape[-2:])
        weight = torch.where((self._drawn(indices, _KIND) < 0.5).view(-1, 1, 1, 1), weight, 1 - boxed.float())
        return ((weight * own[0] + (1 - weight) * others[0]).to(own[0].dtype), *own[1:])


class Reworded(Variants):
    """Token sequences (N, L): some tokens replaced by neighbours in an embedding space (TinyBERT, arXiv 1909.10351,
    section 4, without a language model), or the beginning of one sequence joined to the rest of another.

    ``neighbours`` (V, k): for each token those it may be replaced by, -1 where it stays. ``tokens``: which input holds
    them, ``mask``: which says where they are, ``sequences``: all that go along.
    """

    REPLACED, JOINED = 0.3, 0.25

    def __init__(
        self,
        split: Split,
        copies: int,
        seed: int,
        neighbours: Tensor,
        *,
        tokens: int,
        mask: int | None,
        sequences: tuple[int, ...],
    ) -> None:
        table = hashlib.sha256(neighbours.numpy().tobytes()).hexdigest()
        super().__init__(split, copies, seed, f"{self.REPLACED} {self.JOINED} {tokens} {mask} {sequences} {table}")
        self.neighbours, self.tokens, self.mask, self.sequences = neighbours, tokens, mask, sequences

    def vary(self, own: Inputs, others: Inputs, indices: Tensor) -> Inputs:
        """Sequences reworded, or joined."""
        joined = self._joined(own, others, indices)
        reworded = (*own[: self.tokens], self._reworded(own, indices), *own[self.tokens + 1 :])
        chosen = self._drawn(indices, _KIND) < self.JOINED
        return tuple(torch.where(_like(chosen, a), a, b) for a, b in zip(joined, reworded, strict=True))

    def _reworded(self, own: Inputs, indices: Tensor) -> Tensor:
        ids = own[self.tokens]
        place = torch.arange(ids.shape[1])
        replaced = noise(self.seed, indices[:, None], place, torch.tensor(_WHERE)) < self.REPLACED
        which = noise(self.seed, indices[:, None], place, torch.tensor(_WHICH)) * self.neighbours.shape[1]
        found = self.neighbours[ids, which.long()]
        seen = torch.ones_like(replaced) if self.mask is None else own[self.mask] > 0
        return torch.where(replaced & seen & (found >= 0), found.to(ids.dtype), ids)

    def _joined(self, own: Inputs, others: Inputs, indices: Tensor) -> Inputs:
        """The other sample with the beginning of this one."""
        width = own[self.tokens].shape[1]
        lengths = [width if self.mask is None else x[self.mask].sum(1) for x in (own, others)]
        shortest = torch.minimum(*(torch.as_tensor(n).expand(len(indices)) for n in lengths))
        cut = 1 + (self._drawn(indices, _CUT) * (shortest - 1)).long()
        first = torch.arange(width) < cut[:, None]
        pairs = enumerate(zip(own, others, strict=True))
        return tuple(torch.where(first, a, b) if i in self.sequences else b for i, (a, b) in pairs)


def boxes(area: Tensor, down: Tensor, right: Tensor, height: int, width: int) -> Tensor:
    """(N, 1, height, width): boxes of a share ``area`` of the image around centres, as shares of its sides."""
    side = area.double().sqrt() / 2
    rows = (((torch.arange(height) + 0.5) / height - down[:, None]).abs() < side[:, None])[:, None, :, None]
    columns = (((torch.arange(width) + 0.5) / width - right[:, None]).abs() < side[:, None])[:, None, None, :]
    return rows & columns


def _like(chosen: Tensor, x: Tensor) -> Tensor:
    return chosen.view(-1, *[1] * (x.dim() - 1)).expand_as(x)
