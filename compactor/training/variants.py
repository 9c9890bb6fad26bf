"""Variants of samples for a teacher to label: images mixed, token sequences reworded and joined."""

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from compactor.data import Batch, Split, lengths_of
from compactor.training.schedule import noise

Inputs = tuple[Tensor, ...]

_PARTNER, _KIND, _SHARE, _DOWN, _RIGHT, _END, _WHERE, _WHICH, _START = range(9)


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
        partners = self._partners(indices[varied])
        taken = self.room(self.split.take(torch.cat([indices % count, partners])).inputs)
        own, others = (tuple(x[part] for x in taken) for part in (slice(len(indices)), slice(len(indices), None)))
        made = self.vary(tuple(x[varied] for x in own), others, indices[varied])
        return Batch(tuple(x.masked_scatter(_like(varied, x), y) for x, y in zip(own, made, strict=True)))

    def room(self, taken: Inputs) -> Inputs:
        """Samples with room for what their variants have more."""
        return taken

    @abstractmethod
    def vary(self, own: Inputs, others: Inputs, indices: Tensor) -> Inputs:
        """Variants of the samples ``own``, each with another sample to draw from."""

    def _partners(self, indices: Tensor) -> Tensor:
        return (self._drawn(indices, _PARTNER) * len(self.split)).long()

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
    section 4, without a language model), or spans of two joined: the greater part of one, then that of another.

    ``neighbours`` (V, k): for each token those it may be replaced by, -1 where it stays. ``tokens``: which input holds
    them, ``mask``: which says where they are, ``sequences``: all that go along. What is joined is no longer than the
    longest sample. Batches are as short as they can be where those of the split are, in multiples of 8.
    """

    REPLACED, JOINED = 0.3, 0.5

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
        how = f"{self.REPLACED} {self.JOINED} spans {tokens} {mask} {sequences} {table}"
        super().__init__(split, copies, seed, how)
        self.neighbours, self.tokens, self.mask, self.sequences = neighbours, tokens, mask, sequences

    @cached_property
    def lengths(self) -> Tensor | None:
        """(N,) tokens of each sequence, variants included; None where all are padded alike."""
        if self._sizes is None:
            return None
        indices = torch.arange(len(self))
        own, others = self._sizes[indices % len(self.split)], self._sizes[self._partners(indices)]
        end, start = self._spans(indices, own, others, int(self._sizes.max()))
        joined = (indices >= len(self.split)) & self._is_joined(indices)
        return torch.where(joined, end + others - start, own)

    def take(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` (N,); those beyond the split are variants."""
        batch = super().take(indices)
        if self.lengths is None:
            return batch
        width = -(-int(self.lengths[indices].max()) // 8) * 8
        return Batch(tuple(x[:, :width] if i in self.sequences else x for i, x in enumerate(batch.inputs)))

    def room(self, taken: Inputs) -> Inputs:
        """Padded to the longest sample."""
        if self._sizes is None:
            return taken
        more = max(0, int(self._sizes.max()) - taken[self.tokens].shape[1])
        pads = enumerate(zip(taken, self._padding, strict=True))
        return tuple(F.pad(x, (0, more), value=pad) if i in self.sequences else x for i, (x, pad) in pads)

    def vary(self, own: Inputs, others: Inputs, indices: Tensor) -> Inputs:
        """Sequences reworded, or joined."""
        joined = self._joined(own, others, indices)
        reworded = (*own[: self.tokens], self._reworded(own, indices), *own[self.tokens + 1 :])
        chosen = self._is_joined(indices)
        return tuple(torch.where(_like(chosen, a), a, b) for a, b in zip(joined, reworded, strict=True))

    @cached_property
    def _sizes(self) -> Tensor | None:
        """(N,) tokens of each sample; None where no mask or no split tells."""
        return None if self.mask is None else lengths_of(self.split)

    @cached_property
    def _padding(self) -> list[float]:
        """What fills up each input behind short sequences."""
        sizes = torch.as_tensor(self._sizes)
        short = self.split.take(torch.stack([sizes.argmin(), sizes.argmax()])).inputs
        return [float(x[0].flatten()[-1]) if sizes.min() < x.shape[-1] else 0.0 for x in short]

    def _is_joined(self, indices: Tensor) -> Tensor:
        return self._drawn(indices, _KIND) < self.JOINED

    def _spans(self, indices: Tensor, own: Tensor, others: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Where the span of one sample ends, at half of its tokens or later, and that of the other starts.

        Together they have at most ``most`` tokens, the last one of the other included.
        """
        end = own - 1 - (self._drawn(indices, _END) * (own - 1) / 2).long()
        start = 1 + (self._drawn(indices, _START) * (others - 1) / 2).long()
        return end, torch.maximum(start, end + others - most)

    def _reworded(self, own: Inputs, indices: Tensor) -> Tensor:
        ids = own[self.tokens]
        place = torch.arange(ids.shape[1])
        replaced = noise(self.seed, indices[:, None], place, torch.tensor(_WHERE)) < self.REPLACED
        which = noise(self.seed, indices[:, None], place, torch.tensor(_WHICH)) * self.neighbours.shape[1]
        found = self.neighbours[ids, which.long()]
        seen = torch.ones_like(replaced) if self.mask is None else own[self.mask] > 0
        return torch.where(replaced & seen & (found >= 0), found.to(ids.dtype), ids)

    def _joined(self, own: Inputs, others: Inputs, indices: Tensor) -> Inputs:
        """A span of this sample and one of the other, in place where there is no mask to tell lengths."""
        width = own[self.tokens].shape[1]
        place = torch.arange(width)
        if self.mask is None:
            end = (1 + self._drawn(indices, _END) * (width - 1)).long()[:, None]
            start, total = end, torch.full_like(end, width)
        else:
            sizes = [(x[self.mask] > 0).sum(1) for x in (own, others)]
            most = width if self._sizes is None else int(self._sizes.max())
            end, start = (x[:, None] for x in self._spans(indices, sizes[0], sizes[1], most))
            total = end + sizes[1][:, None] - start
        at = (place - end + start).clamp(0, width - 1)
        made = []
        for i, (a, b) in enumerate(zip(own, others, strict=True)):
            if i not in self.sequences:
                made.append(b)
                continue
            pad = self._padding[i] if self._sizes is not None else 0
            made.append(torch.where(place < end, a, b.gather(1, at)).masked_fill(place >= total, pad))
        return tuple(made)


def boxes(area: Tensor, down: Tensor, right: Tensor, height: int, width: int) -> Tensor:
    """(N, 1, height, width): boxes of a share ``area`` of the image around centres, as shares of its sides."""
    side = area.double().sqrt() / 2
    rows = (((torch.arange(height) + 0.5) / height - down[:, None]).abs() < side[:, None])[:, None, :, None]
    columns = (((torch.arange(width) + 0.5) / width - right[:, None]).abs() < side[:, None])[:, None, None, :]
    return rows & columns


def _like(chosen: Tensor, x: Tensor) -> Tensor:
    return chosen.view(-1, *[1] * (x.dim() - 1)).expand_as(x)
