"""The summary says what was measured, what was predicted and what is unverified."""

from compactor.report.manifest import Limits
from compactor.report.summary import text
from tests.report.samples import finished, manifest


def test_measured() -> None:
    result = text(manifest(p50=1.0))
    assert "4.000 ms (measured)" in result and "1.000 ms (measured)" in result
    assert "4.00x faster" in result and "4.00x smaller" in result
    assert "accuracy (test)" in result and "-0.50 points" in result
    assert "unverified" not in result.lower() and "predicted" not in result


def test_predicted() -> None:
    result = text(manifest(p50=1.0, basis="predicted"))
    assert "1.000 ms (predicted," in result and "0.500 to 2.000)" in result
    assert "latency is predicted, not measured" in result
    assert "(measured)" not in result


def test_finished_where_the_teacher_is_only_predicted() -> None:
    result = " ".join(text(finished(manifest(p50=1.0, basis="predicted"), p50=2.0)).split())
    assert "not measured 2.000 ms (measured)" in result.replace("│ ", "")
    assert "2.00x faster" not in result, "predicted over measured"
    assert "4.00x faster" in result, "predicted over predicted"
    assert "the teacher was not measured here" in result


def test_synthetic() -> None:
    result = text(manifest(score="unverified", limits=Limits(drop=1.0)))
    assert "accuracy unverified" in result
    assert "gate: MISSED" in result


def test_what_was_assumed_of_the_teacher() -> None:
    result = text(manifest(assumed="input 1x3x32x32 assumed: its first convolution has stride 1"))
    assert "! input 1x3x32x32 assumed: its first convolution" in " ".join(result.split())
    assert "assumed" not in text(manifest())


def test_gate_lines() -> None:
    result = text(manifest(limits=Limits(latency=5.0, size=4)))
    assert "1.000 ms (measured)" in result and "passed" in result
    assert "gate: MISSED" in result
