"""The reported score: teacher and student side by side on `test`, or on `dev` where there is no test."""

from collections.abc import Callable, Sequence

from torch import Tensor

from compactor import scoring
from compactor.data import DataSource
from compactor.report.manifest import Score

Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


def score(teacher: Run, student: Run, data: DataSource) -> Score:
    """Accuracy on labelled data; agreement with the teacher without labels; ``unverified`` on synthetic inputs."""
    name, split = ("test", data.test) if data.test is not None else ("dev", data.dev)
    samples = len(split)
    if data.synthetic or not split.labelled:
        value = scoring.agreement(teacher, student, split)
        kind = "unverified" if data.synthetic else "agreement"
        return Score(name=kind, split=name, teacher=100.0, student=value, samples=samples)  # type: ignore[arg-type]
    before, after = scoring.evaluate(teacher, split), scoring.evaluate(student, split)
    return Score(name="accuracy", split=name, teacher=before, student=after, samples=samples)
