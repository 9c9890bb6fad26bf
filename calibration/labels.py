"""Labels: from names or numbers to logit indices, checked against the teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compactor.calibration import facts
from compactor.errors import InputError
from compactor.ir.program import Program


def from_texts(texts: Sequence[str], program: Program, where: str, first_row: int = 2) -> Tensor:
    """Indices (N,) of labels given as names of the teacher's labels or as numbers. Raises `InputError` with the row."""
    names = {name: i for i, name in enumerate(facts.labels(program) or ())}
    known: dict[str, int] = {}
    for row, text in enumerate(texts, first_row):
        if text in known:
            continue
        if text in names:
            known[text] = names[text]
        elif text.strip().removeprefix("-").isdigit():
            known[text] = int(text)
        else:
            shown = ", ".join(list(names)[:10]) or "none"
            raise InputError(
                f"{where}, line {row}: label {text!r} is not a number and not a label of the teacher",
                f"use a number from 0, or one of the teacher's labels: {shown}",
            )
    return checked(torch.tensor([known[t] for t in texts], dtype=torch.int64), program, where, first_row, "line")


def checked(labels: Tensor, program: Program, where: str, first_row: int = 0, unit: str = "row") -> Tensor:
    """``labels`` (N,) as int64, if each names one of the teacher's logits. Raises `InputError` with row and value."""
    if labels.dim() != 1 or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise InputError(
            f"{where}: labels have shape {tuple(labels.shape)} and dtype {labels.dtype}", "give (N,) integers, from 0"
        )
    labels = labels.long()
    count = facts.classes(program)
    if count is None:
        return labels
    wrong = ((labels < 0) | (labels >= count)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{where}, {unit} {row + first_row}: label {int(labels[row])}, but the teacher has {count} logits "
            f"(0 to {count - 1}); {len(wrong)} such labels",
            "use the labels that the teacher was trained with, counted from 0",
        )
    return labels
