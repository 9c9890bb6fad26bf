"""A small artifact to test with."""

from pathlib import Path
from typing import Any

from compactor.latency import Latency
from compactor.report.artifact import Artifact, draft
from compactor.report.gate import evaluate
from compactor.report.manifest import (
    DataRecord,
    Latencies,
    LatencyFigure,
    Limits,
    LoweredModel,
    Manifest,
    Metrics,
    Network,
    ParityRecord,
    Score,
    Sizes,
    Stage,
)


def metrics(p50: float = 1.0, basis: Any = "measured", score: Any = "accuracy") -> Metrics:
    """A teacher at 4 ms and 95 %, a student at ``p50`` and 94.5 %."""
    interval = {"low": 0.5 * p50, "high": 2 * p50} if basis == "predicted" else {"n": 100}
    return Metrics(
        score=Score(name=score, split="test", teacher=95.0, student=94.5, samples=200),
        latency_ms=Latencies(
            teacher=LatencyFigure(p50=4.0, basis=basis, **interval),
            student=LatencyFigure(p50=p50, basis=basis, **interval),
        ),
        size_bytes=Sizes(teacher=20, student=5),
    )


def manifest(
    seed: int = 0,
    p50: float = 1.0,
    basis: Any = "measured",
    score: Any = "accuracy",
    limits: Limits | None = None,
    assumed: str | None = None,
) -> Manifest:
    """A whole manifest; ``limits`` default to none."""
    limits = limits or Limits()
    figures = metrics(p50, basis, score)
    return Manifest(
        compactor="0.1.0",
        target="host-cpu",
        backend="onnx",
        seed=seed,
        pipeline="canonicalize",
        history=[Stage(pass_="canonicalize", version=1, seconds=p50)],
        teacher=Network(fingerprint="aa", parameters=100, macs=1000, assumed=assumed),
        student=Network(fingerprint="bb", parameters=25, macs=250, precision="int8", subnet={"groups": {}}),
        data=DataRecord(fingerprint="cc", synthetic=score == "unverified"),
        metrics=figures,
        budget=limits,
        gate=evaluate(figures, limits),
        parity=[ParityRecord(backend="onnx", error=1e-6, agreement=1.0, passed=True)],
        lowered=[LoweredModel(backend="onnx", folder="onnx", files=["model.onnx"], precision="int8")],
        environment={"python": "3.11"},
    )


def build(folder: Path, **changes: Any) -> Artifact:
    """The manifest written with two files."""
    with draft(folder) as work:
        (work.folder / "student.pt2").write_bytes(b"student")
        (work.subfolder("onnx") / "model.onnx").write_bytes(b"model")
        return work.finish(manifest(**changes))


def finished(manifest: Manifest, p50: float) -> Manifest:
    """The manifest after the student was measured on the device."""
    metrics = manifest.metrics.with_measured(Latency(p50, "measured", n=100))
    return manifest.model_copy(update={"metrics": metrics, "gate": evaluate(metrics, manifest.budget)})
