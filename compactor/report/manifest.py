"""The schema of ``manifest.json``, documented field by field in ``docs/manifest.md``."""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from compactor.budget import Budget
from compactor.latency import Basis, Latency
from compactor.parity import Parity

SCHEMA = 1


class Model(BaseModel):
    """Base of all parts: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Stage(Model):
    """One pass that ran. ``seconds`` and ``metrics`` may hold measured values: they sit outside the content hash."""

    pass_: str = Field(alias="pass")
    version: int
    config: dict[str, Any] = {}
    seconds: float = 0.0
    metrics: dict[str, Any] = {}


class Network(Model):
    """Identity and cost of a Program.

    ``subnet`` is what was kept of the teacher, None when nothing was removed; ``assumed`` what the frontend had to
    guess of a teacher, such as the shape of its inputs.
    """

    fingerprint: str
    parameters: int
    macs: int
    precision: str = "float32"
    subnet: dict[str, Any] | None = None
    assumed: str | None = None


class Score(Model):
    """Percent of correct answers (``accuracy``) or of answers equal to the teacher's (``agreement``, ``unverified``).

    ``unverified`` means that the inputs were synthetic: it says nothing about accuracy on real data.
    """

    name: Literal["accuracy", "agreement", "unverified"]
    split: str
    teacher: float
    student: float
    samples: int | None = None

    @property
    def drop(self) -> float:
        """Percentage points the student is below the teacher."""
        return self.teacher - self.student


class LatencyFigure(Model):
    """`compactor.latency.Latency` as JSON: milliseconds and where they come from."""

    p50: float
    basis: Basis
    p90: float | None = None
    p99: float | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    threads: int | None = None
    warning: str | None = None

    @staticmethod
    def of(latency: Latency) -> "LatencyFigure":
        """The figure of a `Latency`."""
        return LatencyFigure(**latency.__dict__)

    def latency(self) -> Latency:
        """The inverse of `of`."""
        return Latency(**self.model_dump())


class Latencies(Model):
    """Milliseconds at batch 1, on the same runtime.

    ``predicted`` is what was predicted of a student that was measured later, without the teacher.
    """

    teacher: LatencyFigure
    student: LatencyFigure
    predicted: LatencyFigure | None = None

    def pair(self) -> tuple[LatencyFigure, LatencyFigure] | None:
        """Teacher and student of one kind, measured or predicted: what may be compared. None where there is none."""
        same = (s for s in (self.student, self.predicted) if s is not None and s.basis == self.teacher.basis)
        student = next(same, None)
        return None if student is None else (self.teacher, student)


class Sizes(Model):
    """Bytes of the lowered models."""

    teacher: int
    student: int


class Metrics(Model):
    """Before and after."""

    score: Score
    latency_ms: Latencies
    size_bytes: Sizes

    def with_measured(self, latency: Latency) -> "Metrics":
        """The figures with the student's latency as measured on the device; what was predicted of it is kept."""
        before = self.latency_ms
        predicted = before.student if before.student.basis == "predicted" else before.predicted
        after = Latencies(teacher=before.teacher, student=LatencyFigure.of(latency), predicted=predicted)
        return self.model_copy(update={"latency_ms": after})


class Limits(Model):
    """`compactor.budget.Budget` as JSON: ms, share of the teacher's ms, bytes, percentage points."""

    latency: float | None = None
    latency_share: float | None = None
    size: int | None = None
    drop: float | None = None

    @staticmethod
    def of(budget: Budget) -> "Limits":
        """The limits of a `Budget`."""
        return Limits(**budget.to_dict())


class Check(Model):
    """One limit held against the figures. ``value`` is None when it could not be verified, which is a miss."""

    name: Literal["latency", "size", "drop"]
    limit: float
    value: float | None
    passed: bool
    basis: str | None = None


class Gate(Model):
    """All checks; no limits means passed."""

    passed: bool
    checks: list[Check] = []


class ParityRecord(Model):
    """How closely the lowered model computes what the Program computes."""

    backend: str
    error: float
    agreement: float | None = None
    cosine: float | None = None
    passed: bool

    @staticmethod
    def of(backend: str, found: Parity) -> "ParityRecord":
        """The record of a comparison."""
        figures = {"error": found.error, "agreement": found.agreement, "cosine": found.cosine}
        return ParityRecord(backend=backend, passed=found.passed, **figures)


class LoweredModel(Model):
    """One lowered model: ``files`` relative to the artifact, the first is the model itself."""

    backend: str
    folder: str
    files: list[str]
    precision: str
    options: dict[str, str | int | float | bool] = {}


class DataRecord(Model):
    """The data the build used: identity, not content."""

    fingerprint: str
    synthetic: bool


class Manifest(Model):
    """Everything about one artifact. See ``docs/manifest.md``."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    compactor: str
    target: str
    backend: str
    seed: int
    pipeline: str
    history: list[Stage] = []
    teacher: Network
    student: Network
    data: DataRecord
    metrics: Metrics
    budget: Limits = Limits()
    gate: Gate
    parity: list[ParityRecord] = []
    lowered: list[LoweredModel] = []
    files: dict[str, str] = {}
    content: str = ""
    environment: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """JSON form; figures that are absent are left out."""
        return self.model_dump(by_alias=True, exclude_none=True)

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def content_hash(self) -> str:
        """sha256 over what the same command with the same seed reproduces: measured times and tolerances excluded."""
        whole = self.to_dict()
        part = {key: whole.get(key) for key in _REPRODUCIBLE}
        part["history"] = [{k: stage[k] for k in ("pass", "version", "config")} for stage in whole["history"]]
        part["score"] = whole["metrics"]["score"]
        part["size_bytes"] = whole["metrics"]["size_bytes"]
        latencies = dict(whole["metrics"]["latency_ms"])
        latencies["student"] = latencies.pop("predicted", latencies["student"])
        part["predicted_ms"] = {k: v for k, v in latencies.items() if v["basis"] == "predicted"}
        return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


_REPRODUCIBLE = (
    "schema", "compactor", "target", "backend", "seed", "pipeline", "teacher", "student", "data", "budget",
    "lowered", "files",
)  # fmt: skip
