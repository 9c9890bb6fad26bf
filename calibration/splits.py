"""The splits: arrays and ragged token sequences in memory, image files, and parts of a split."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from compactor.data import Batch, Split, lengths_of
from compactor.errors import InputError


def digest(*parts: Tensor | str | None) -> str:
    """sha256 over tensors (dtype, shape, content) and texts."""
    result = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            result.update(f"{part.dtype} {tuple(part.shape)}".encode())
            result.update(part.contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            result.update(repr(part).encode())
    return result.hexdigest()


def to_image(pixels: Tensor) -> Tensor:
    """``uint8`` (N, H, W, C) to float32 (N, C, H, W) in 0..1."""
    return pixels.permute(0, 3, 1, 2).contiguous().float().div_(255)


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Samples as one array per input; ``uint8`` images (N, H, W, C) become float (N, C, H, W) in 0..1 when taken."""

    arrays: tuple[Tensor, ...]
    dtypes: tuple[torch.dtype, ...]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.arrays[0])

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return self.labels is not None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over arrays, labels and the dtypes they are taken in."""
        return digest("arrays", *self.arrays, self.labels, str(self.dtypes))

    def take(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` (N,), in the Program's input format."""
        inputs = []
        for array, dtype in zip(self.arrays, self.dtypes, strict=True):
            rows = array[indices]
            is_pixels = rows.dtype == torch.uint8 and dtype.is_floating_point
            inputs.append((to_image(rows) if is_pixels else rows).to(dtype))
        return Batch(tuple(inputs), None if self.labels is None else self.labels[indices])


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Token sequences, tokenized once, kept ragged, padded when taken.

    ``tokens`` maps a token input's name to all its values end to end (int32); sequence i is
    ``offsets[i]:offsets[i + 1]``. A batch is as long as its longest sequence rounded up to a multiple of 8, and never
    longer than ``length``; always ``length`` when the Program's sequence is static.
    """

    names: tuple[str, ...]
    tokens: Mapping[str, Tensor]
    offsets: Tensor
    pads: Mapping[str, int]
    length: int
    dynamic: bool
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return self.labels is not None

    @cached_property
    def lengths(self) -> Tensor | None:
        """(N,) tokens of each sequence, so that batches can be made of like ones; None where all are padded alike."""
        return self.offsets.diff() if self.dynamic else None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over tokens, labels and how they are padded."""
        how = f"{self.names} {sorted(self.pads.items())} {self.length} {self.dynamic}"
        return digest("text", how, *(self.tokens[n] for n in sorted(self.tokens)), self.offsets, self.labels)

    def take(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` (N,): int64 inputs (N, L)."""
        start = self.offsets[indices]
        sizes = self.offsets[indices + 1] - start
        longest = int(sizes.max()) if len(sizes) else 1
        width = min(-(-longest // 8) * 8, self.length) if self.dynamic else self.length
        steps = torch.arange(width)
        inside = steps < sizes[:, None]
        inputs = []
        for name in self.names:
            if name == "attention_mask":
                inputs.append(inside.long())
                continue
            flat = self.tokens[name]
            at = (start[:, None] + steps).clamp_(max=len(flat) - 1)
            inputs.append(torch.where(inside, flat[at].long(), self.pads[name]))
        return Batch(tuple(inputs), None if self.labels is None else self.labels[indices])


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Images too many for memory: decoded when taken. ``read`` gives the uint8 pixels (H, W, C) of a file."""

    paths: tuple[Any, ...]
    read: Callable[[Any], Tensor]
    how: str
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return self.labels is not None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the bytes of the files, labels and how they are decoded."""
        content = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths)
        return digest("files", self.how, content, self.labels)

    def take(self, indices: Tensor) -> Batch:
        """The images at ``indices`` (N,): float32 (N, C, H, W) in 0..1."""
        pixels = torch.stack([self.read(self.paths[i]) for i in indices.tolist()])
        return Batch((to_image(pixels),), None if self.labels is None else self.labels[indices])


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a split."""

    whole: Split
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return self.whole.labelled

    @cached_property
    def lengths(self) -> Tensor | None:
        """(N,) lengths of the sequences, where the whole split knows them."""
        lengths = lengths_of(self.whole)
        return None if lengths is None else lengths[self.indices]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the whole split and which samples of it these are."""
        return digest("part", self.whole.fingerprint, self.indices)

    def take(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` (N,) of this part."""
        return self.whole.take(self.indices[indices])


def set_aside(split: Split, labels: Tensor | None, seed: int, share: float = 0.1) -> tuple[Part, Part]:
    """``split`` in two by seed: the rest, and a ``share`` of every class (of all samples, without labels)."""
    if len(split) < 2:
        raise InputError(f"train has {len(split)} sample, too few to set some aside", "give more data, or a dev split")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(split), generator=generator)
    groups = [order] if labels is None else [order[labels[order] == c] for c in torch.unique(labels)]
    chosen = torch.cat([group[: round(len(group) * share)] for group in groups])
    if not len(chosen):
        chosen = order[:1]
    kept = torch.ones(len(split), dtype=torch.bool)
    kept[chosen] = False
    return Part(split, kept.nonzero().flatten()), Part(split, (~kept).nonzero().flatten())
