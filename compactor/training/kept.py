"""Hidden states of a frozen teacher, computed once per sample and view and kept on disk in bfloat16."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock
from torch import Tensor

from compactor.data import Split, by_sample, shortest_first
from compactor.errors import InputError
from compactor.pipeline.context import Progress, Silent
from compactor.training import checkpoint, taps
from compactor.training.pairing import Pair
from compactor.training.precision import as_trained, bfloat16_is_fast, reduced
from compactor.training.projection import HIDDEN, Guided
from compactor.training.taps import Named
from compactor.training.views import Views, seen

_BATCH, _PROBED = 64, 64
_FORM = 2
"""Of what is on the disk."""


@dataclass(frozen=True)
class Rows:
    """Ragged rows, (total, width); those of sample i are the ``counts[i]`` from ``offsets[i]`` on."""

    values: Tensor
    offsets: Tensor
    counts: Tensor

    def take(self, indices: Tensor, positions: int) -> tuple[Tensor, Tensor]:
        """(N, positions, width), each sample's last row repeated, and which positions it has, (N, positions)."""
        start, counts = self.offsets[indices], self.counts[indices]
        steps = torch.arange(positions)
        at = start[:, None] + torch.minimum(steps, counts[:, None] - 1)
        taken = self.values.index_select(0, at.flatten()).view(len(indices), positions, -1)
        return taken, steps < counts[:, None]


@dataclass(frozen=True)
class _View:
    """All samples as one view shows them: logits (samples, classes), hidden states by name, unmasked positions.

    ``length``: positions of the longest batch's mask.
    """

    logits: Tensor
    states: Mapping[str, Rows]
    mask: Rows | None
    length: int


class Kept:
    """What a frozen `Guided` teacher shows of a split: logits in float32, hidden states in bfloat16, without padding.

    View ``epoch % count`` is computed when it is first asked for, in one pass over the split, and mapped from files in
    ``folder`` from then on: asked again for the same teacher and data, by whatever process, the teacher does not run.
    """

    def __init__(
        self,
        pair: Pair,
        teacher: Guided,
        split: Split,
        folder: Path,
        *,
        views: Views | None = None,
        count: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.pair, self.teacher, self.split, self.folder = pair, teacher, split, folder
        self.views, self.count, self.progress = views, count, progress or Silent()
        self._names = [HIDDEN + s.name for s in teacher.streams]
        self._known: dict[int, _View] = {}

    def bytes(self) -> int | None:
        """About how much disk it takes; None where outputs cannot be kept.

        Those are token-wise logits, and inputs of free size where no mask of the teacher says what is padding.
        """
        count = min(_PROBED, len(self.split))
        inputs = self.split.take(torch.linspace(0, len(self.split) - 1, count).long()).inputs
        found = self._run(inputs)
        logits, mask = next(iter(found.values())), _mask(found, count)
        if logits.dim() != 2 or (self._free and not self._padding_known(found, inputs, mask)):
            return None
        sizes = [_counts(mask, count, found[n].shape[1]).double().mean() * found[n].shape[2] for n in self._names]
        return int(len(self.split) * self.count * (4 * logits.shape[1] + 2 * float(sum(sizes))))

    def __call__(self, indices: Tensor, epoch: int, inputs: Sequence[Tensor]) -> Named:
        """As the teacher, which does not run; ``inputs`` tell how long the batch is, ``indices`` (N,) what is in it."""
        number, device = epoch % self.count, inputs[0].device
        if number not in self._known:
            self._known[number] = self._load(number)
        view = self._known[number]
        found = {"logits": view.logits[indices]}
        for stream, name in zip(self.teacher.streams, self._names, strict=True):
            positions = inputs[self._tokens].shape[1] if self._free else _positions(stream.shape, stream.dim)
            found[name] = view.states[name].take(indices, positions)[0]
        if view.mask is not None:
            positions = inputs[self._tokens].shape[1] if self._free else view.length
            seen_, inside = view.mask.take(indices, positions)
            found[taps.MASK] = (seen_[..., 0] & inside)[:, None, None]
        return {name: value.to(device) for name, value in found.items()}

    # -- what may be kept ------------------------------------------------------------------------------------------

    @cached_property
    def _free(self) -> bool:
        """Whether the number of positions differs from batch to batch."""
        return any(dim > 0 for spec in self.pair.teacher.inputs for dim in spec.dynamic)

    @cached_property
    def _tokens(self) -> int:
        """The input whose length is that of the hidden states."""
        return next(i for i, spec in enumerate(self.pair.teacher.inputs) if 1 in spec.dynamic)

    def _padding_known(self, found: Named, inputs: Sequence[Tensor], mask: Tensor | None) -> bool:
        """Whether every sample has a mask over its positions that begins with the first of them."""
        lengths = {found[name].shape[1] for name in self._names}
        dynamic = [x for x, spec in zip(inputs, self.pair.teacher.inputs, strict=True) if 1 in spec.dynamic]
        if mask is None or not dynamic or not bool(mask[:, 0].all()):
            return False
        own = len(found[taps.MASK]) == len(inputs[0])
        return own and lengths | {x.shape[1] for x in dynamic} == {mask.shape[1]}

    # -- making and reading ----------------------------------------------------------------------------------------

    def _run(self, inputs: tuple[Tensor, ...]) -> Named:
        device = inputs[0].device.type
        with torch.no_grad(), reduced(device, bfloat16_is_fast(device)):
            found: Named = self.teacher(*as_trained(inputs, device))
        return found

    def _load(self, number: int) -> _View:
        key = self._key(number)
        folder = self.folder / f"{key}.outputs"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            index = checkpoint.load(folder / "index", key)
            if index is None or not _complete(folder, index):
                index = {"key": key, **self._compute(number, folder)}
                checkpoint.save(folder / "index", index)
            os.utime(folder)
        states = {}
        for i, name in enumerate(self._names):
            offsets, counts = index["rows"][i]
            total, width = int(counts.sum()), index["widths"][i]
            values = torch.from_file(str(_states(folder, i)), shared=False, size=total * width, dtype=torch.bfloat16)
            states[name] = Rows(values.view(total, width), offsets, counts)
        mask = None if index["mask"] is None else Rows(index["mask"][:, None], *index["mask_rows"])
        return _View(index["logits"], states, mask, index["length"])

    def _key(self, number: int) -> str:
        filters = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in self.teacher.projections.parameters()))
        shown = (self.split.fingerprint, number, self.views.key if self.views else "")
        made = (_FORM, self.pair.teacher.fingerprint, filters.hexdigest(), self._names, bfloat16_is_fast())
        return hashlib.sha256(repr((made, shown)).encode()).hexdigest()

    def _compute(self, number: int, folder: Path) -> dict[str, Any]:
        made, order, done = _Made(len(self._names)), shortest_first(self.split), 0
        with ExitStack() as stack:
            files = [stack.enter_context(checkpoint.whole(_states(folder, i))) for i in range(len(self._names))]
            for indices in torch.split(order, _BATCH):
                found = self._run(seen(self.split, self.views, indices, number).inputs)
                made.add(found, self._names, files)
                done += len(indices)
                self.progress.update(done, len(order), f"view {number}: teacher's hidden states")
        return made.index(order)


def _states(folder: Path, layer: int) -> Path:
    return folder / f"states{layer}"


def _complete(folder: Path, index: dict[str, Any]) -> bool:
    """Whether every file holds what the index says; a store that is cleaned up may lose one before the other."""
    sizes = [2 * int(counts.sum()) * width for (_, counts), width in zip(index["rows"], index["widths"], strict=True)]
    files = [_states(folder, i) for i in range(len(sizes))]
    return all(f.exists() and f.stat().st_size == size for f, size in zip(files, sizes, strict=True))


class _Made:
    """Gathers what a pass over the split makes, in the order of the pass."""

    def __init__(self, layers: int) -> None:
        self._logits: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._mask_counts: list[Tensor] = []
        self._counts: list[list[Tensor]] = [[] for _ in range(layers)]
        self._widths, self._length = [0] * layers, 0

    def add(self, found: Named, names: Sequence[str], files: Sequence[IO[bytes]]) -> None:
        """Take a batch; hidden states go to their files."""
        logits = next(iter(found.values())).float().cpu()
        if not all(x.isfinite().all() for x in (logits, *(found[name] for name in names))):
            raise InputError(
                "the teacher's hidden states hold NaN or infinite values", "check its weights and the data"
            )
        self._logits.append(logits)
        mask = _mask(found, len(logits))
        if mask is not None:
            self._length = max(self._length, mask.shape[1])
            self._mask_counts.append(_counts(mask, len(logits), mask.shape[1]))
            self._masks.append(mask[_inside(self._mask_counts[-1], mask.shape[1])])
        for i, (name, file) in enumerate(zip(names, files, strict=True)):
            state = found[name].bfloat16().cpu()
            counts = _counts(mask, len(state), state.shape[1])
            self._counts[i].append(counts)
            self._widths[i] = state.shape[2]
            file.write(state[_inside(counts, state.shape[1])].view(torch.uint8).numpy().data)

    def index(self, order: Tensor) -> dict[str, Any]:
        """All but the hidden states; by sample, which came in this order."""
        return {
            "logits": by_sample(torch.cat(self._logits), order),
            "rows": [_rows(counts, order) for counts in self._counts],
            "widths": self._widths,
            "mask": torch.cat(self._masks) if self._masks else None,
            "mask_rows": _rows(self._mask_counts, order) if self._masks else (),
            "length": self._length,
        }


def _mask(found: Named, count: int) -> Tensor | None:
    """(N, T): which positions are no padding, where the teacher says so."""
    return taps.visible(found[taps.MASK]).expand(count, -1).cpu() if taps.MASK in found else None


def _counts(mask: Tensor | None, count: int, positions: int) -> Tensor:
    """(N,): positions up to the last that is no padding; all where no mask is over as many."""
    if mask is None or mask.shape[1] != positions:
        return torch.full((count,), positions)
    return positions - mask.flip(1).int().argmax(1)


def _inside(counts: Tensor, positions: int) -> Tensor:
    return torch.arange(positions) < counts[:, None]


def _rows(counts: Sequence[Tensor], order: Tensor) -> tuple[Tensor, Tensor]:
    """By sample: where its rows start, and how many there are."""
    whole = torch.cat(list(counts))
    return by_sample(whole.cumsum(0) - whole, order), by_sample(whole, order)


def _positions(shape: Sequence[int], dim: int) -> int:
    """All but the batch and the channels."""
    return int(torch.Size([n for d, n in enumerate(shape) if d not in (0, dim)]).numel())
