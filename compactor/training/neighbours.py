"""Which tokens may stand for which: neighbours in a teacher's embedding space, among the tokens of the data."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from compactor.data import Split
from compactor.training import checkpoint

NEAREST = 10

_BATCH, _CHUNK = 256, 1024
_COMMON = 0.5


def neighbours(embedding: Tensor, split: Split, tokens: int, folder: Path) -> Tensor:
    """For each token the `NEAREST` others of the data by cosine, (V, k) int32; -1 for tokens that must stay.

    Tokens stay that are in more than half of all samples, as classifier tokens, separators and padding are, and those
    that the data has none of. ``embedding``: (V, width); ``tokens``: the place of the token input. Kept in ``folder``.
    """
    identity = f"{NEAREST} {_COMMON} {tokens} {split.fingerprint} "
    key = hashlib.sha256(identity.encode() + embedding.float().contiguous().numpy().tobytes()).hexdigest()
    path = folder / "neighbours"
    stored = checkpoint.load(path, key)
    if stored is None:
        stored = {"key": key, "neighbours": _nearest(embedding.float(), _replaceable(split, tokens, len(embedding)))}
        checkpoint.save(path, stored)
    found: Tensor = stored["neighbours"]
    return found


def _replaceable(split: Split, tokens: int, vocabulary: int) -> Tensor:
    """The tokens of the data, without those that most samples have."""
    counts = torch.zeros(vocabulary, dtype=torch.int64)
    for indices in torch.split(torch.arange(len(split)), _BATCH):
        ids = split.take(indices).inputs[tokens].long().sort(1).values
        first = F.pad(ids[:, 1:] != ids[:, :-1], (1, 0), value=True)
        counts += torch.bincount(ids[first], minlength=vocabulary)
    return ((counts > 0) & (counts <= _COMMON * len(split))).nonzero().flatten()


def _nearest(embedding: Tensor, known: Tensor) -> Tensor:
    count = min(NEAREST, len(known) - 1)
    table = torch.full((len(embedding), max(1, count)), -1, dtype=torch.int32)
    if count < 1:
        return table
    unit = F.normalize(embedding[known], dim=1)
    for part in torch.split(torch.arange(len(known)), _CHUNK):
        alike = unit[part] @ unit.T
        alike[torch.arange(len(part)), part] = -torch.inf
        table[known[part]] = known[alike.topk(count, dim=1).indices].int()
    return table
