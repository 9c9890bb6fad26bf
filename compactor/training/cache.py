"""Outputs of a teacher, computed once per sample and view and kept on disk."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from compactor.data import Split, by_sample, shortest_first
from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.pipeline.context import Progress, Silent
from compactor.training import checkpoint
from compactor.training.precision import as_trained, bfloat16_is_fast, channels_last, reduced

View = Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, ...]]
"""Maps inputs and their sample indices to what the teacher sees."""

Kept = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (N, ..., classes) and their sample indices to what is kept, (N, ...)."""


class Teacher:
    """A teacher that answers in the precision the machine is fast in. Returns its first output, (N, ..., classes).

    ``fixed``: all samples are of one length.
    """

    def __init__(self, program: Program) -> None:
        self.fingerprint = program.fingerprint
        self.fixed = not any(dim > 0 for spec in program.inputs for dim in spec.dynamic)
        self.reduced = bfloat16_is_fast() and program.precision == "float32"
        self._module = channels_last(program.module()) if self.reduced else program.module()

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits in float32. Raises `InputError` when they are not finite."""
        with torch.inference_mode(), reduced("cpu", self.reduced):
            found: Tensor = self._module(*as_trained(tuple(inputs), "cpu"))[0].float()
        if not found.isfinite().all():
            raise InputError("the teacher's outputs hold NaN or infinite values", "check its weights and the data")
        return found.clone()


def outputs(
    teacher: Teacher,
    split: Split,
    folder: Path,
    *,
    view: View | None = None,
    kept: Kept | None = None,
    name: str = "teacher",
    drawn: str = "",
    batch: int = 256,
    progress: Progress | None = None,
) -> Tensor:
    """The teacher's logits of every sample of ``split``, (N, ..., classes), or what is ``kept`` of them, in its order.

    They stay in ``folder``: asked again for the same teacher and data, by whatever process, the teacher does not run.
    ``name`` and ``drawn`` must say all about the view and what is kept.
    """
    identity = f"{teacher.fingerprint} {split.fingerprint} {name} {drawn} {teacher.reduced}"
    key = hashlib.sha256(identity.encode()).hexdigest()
    path = folder / f"{key}.outputs"
    with FileLock(path.with_suffix(".lock")):
        stored = checkpoint.load(path, key)
        if stored is None:
            stored = {"key": key, "outputs": _compute(teacher, split, view, kept, batch, name, progress or Silent())}
            checkpoint.save(path, stored)
        else:
            path.touch()
    found: Tensor = stored["outputs"]
    return found


def _compute(
    teacher: Teacher, split: Split, view: View | None, kept: Kept | None, batch: int, name: str, progress: Progress
) -> Tensor:
    order = shortest_first(split)
    parts = []
    for indices in torch.split(order, batch):
        inputs = split.take(indices).inputs
        found = teacher(view(inputs, indices) if view else inputs)
        parts.append(kept(found, indices) if kept else found)
        progress.update(sum(map(len, parts)), len(split), f"{name}: teacher outputs")
    return by_sample(torch.cat(parts), order)
