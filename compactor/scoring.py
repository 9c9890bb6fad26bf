"""Scores in percent: accuracy against labels, agreement with the teacher, for Programs and sessions alike."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from compactor.data import Batch, DataSource, Split, shortest_first
from compactor.errors import InputError, UnsupportedError
from compactor.ir import padding
from compactor.ir.program import Program
from compactor.ir.widen import widen

Run = Program | Callable[[Sequence[Tensor]], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Score:
    """Teacher and student on one split, in percent.

    ``accuracy`` is against labels; ``agreement`` is the share of samples where the student's top class is the
    teacher's (the teacher has 100 by definition); ``unverified`` is agreement on made-up inputs.
    """

    name: Literal["accuracy", "agreement", "unverified"]
    split: str
    teacher: float
    student: float

    @property
    def drop(self) -> float:
        """Percentage points that the student is below the teacher."""
        return self.teacher - self.student

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def score(teacher: Run, student: Run, data: DataSource, batch: int = 64) -> Score:
    """The reported score: on ``test`` where there is one, else on ``dev``.

    Raises `InputError` for labels that exceed the classes, `UnsupportedError` for outputs without classes.
    """
    name, split = ("test", data.test) if data.test is not None else ("dev", data.dev)
    if data.synthetic:
        return Score("unverified", name, 100.0, agreement(student, teacher, split, batch))
    if not split.labelled:
        return Score("agreement", name, 100.0, agreement(student, teacher, split, batch))
    return Score("accuracy", name, accuracy(teacher, split, batch), accuracy(student, split, batch))


def scorable(program: Program) -> Program:
    """What to score where the device's runtime is elsewhere: float16 in float32 arithmetic on the same weights.

    Most CPUs convert every float16 operand: a hundred times slower. Overflow shows in the parity check, which does run
    float16.
    """
    return widen(program) if program.precision == "float16" else program


def accuracy(run: Run, split: Split, batch: int = 64) -> float:
    """Percent of samples whose largest logit (first output, last axis) is at the label.

    Raises `InputError` when the split has no labels or a label exceeds the classes.
    """
    hits = total = 0
    for samples in batches(split, batch):
        if samples.labels is None:
            raise InputError("accuracy was asked of a split without labels", "give labelled data, or score agreement")
        found = logits(run, samples.inputs)
        check_labels(samples.labels, found.shape[-1])
        hits += int((found.argmax(-1) == samples.labels).sum())
        total += samples.labels.numel()
    return 100.0 * hits / total


def agreement(run: Run, reference: Run, split: Split, batch: int = 64) -> float:
    """Percent of samples, of tokens where each has logits, on which both have the same largest logit.

    Compared is the first output. Padding does not count where one of both is a Program whose mask tells it.
    """
    mask = next((padding.mask_input(model) for model in (reference, run) if isinstance(model, Program)), None)
    hits = total = 0
    for samples in batches(split, batch):
        first, second = logits(run, samples.inputs), logits(reference, samples.inputs)
        same = (first.argmax(-1) == second.argmax(-1))[padding.tokens(first, samples.inputs, mask)]
        hits += int(same.sum())
        total += same.numel()
    return 100.0 * hits / total


def logits(run: Run, inputs: Sequence[Tensor]) -> Tensor:
    """The first output, (N, ..., classes). Raises `UnsupportedError` when it has no classes to compare."""
    outputs = run(*inputs) if isinstance(run, Program) else run(inputs)
    found = outputs if isinstance(outputs, Tensor) else outputs[0]
    if found.dim() < 2 or found.shape[-1] < 2:
        raise UnsupportedError(
            f"the first output has shape {tuple(found.shape)}, not (N, ..., classes)",
            "only models that return class logits can be scored",
        )
    return found


def check_labels(labels: Tensor, classes: int) -> None:
    """Raises `InputError` for a label outside 0..classes-1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"the data has the label {high if high >= classes else low}, the model has {classes} classes",
            f"give labels from 0 to {classes - 1} in the order of the model's logits",
        )


def batches(split: Split, batch: int) -> Iterator[Batch]:
    """Every sample once, shortest first."""
    if len(split) == 0:
        raise InputError("a split of the data is empty", "give at least one sample in every split")
    order = shortest_first(split)
    for start in range(0, len(split), batch):
        yield split.take(order[start : start + batch])
