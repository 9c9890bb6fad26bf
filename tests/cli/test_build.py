"""``build``, ``gate``, ``verify`` and ``finish`` end to end on the shipped teacher."""

import json
from pathlib import Path

import pytest
import torch

from compactor import registry
from compactor.backends.openvino import npu
from compactor.cli.main import run
from compactor.report.artifact import Artifact
from compactor.report.manifest import Latencies, LatencyFigure
from tests.frontend.teachers import convolutional

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SHORT = ["--pipeline", "canonicalize,fold_batchnorm"]


def command(output: Path, *more: str) -> list[str]:
    """A build of the digits teacher."""
    return ["build", str(DIGITS / "teacher.pt2"), "--output", str(output), *SHORT, *more]


@pytest.mark.timeout(600)
def test_host_cpu_from_build_to_finish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    data = ["--data", str(DIGITS / "data")]
    assert run(command(output, "--target", "host-cpu", "--drop", "1%", *data)) == 0
    text = capsys.readouterr().out
    assert "accuracy (test)" in text
    assert "(measured)" in text
    assert "(predicted" not in text
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["metrics"]["score"]["teacher"] == manifest["metrics"]["score"]["student"] == 99.25
    assert run(["gate", str(output)]) == 0
    assert run(["gate", str(output), "--latency", "1us"]) == 1
    assert run(["verify", str(output), "--json"]) == 0
    assert run(["finish", str(output)]) == 0
    assert run(["gate", str(output)]) == 0
    assert json.loads((output / "manifest.json").read_text())["content"] == manifest["content"]
    finish_a_prediction(Artifact.open(output), capsys)


def finish_a_prediction(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    """What `finish` makes of the artifact where teacher and student were only predicted."""
    teacher, student = (LatencyFigure(p50=p50, basis="predicted") for p50 in (60.0, 20.0))
    metrics = artifact.manifest.metrics
    predicted = metrics.model_copy(update={"latency_ms": Latencies(teacher=teacher, student=student)})
    artifact = artifact.rewrite(artifact.manifest.model_copy(update={"metrics": predicted}))
    capsys.readouterr()
    assert run(["finish", str(artifact.folder)]) == 0
    text = capsys.readouterr().out
    assert "not measured" in text and "3.00x faster" in text and text.count("faster") == 1
    manifest = Artifact.open(artifact.folder).manifest
    found = manifest.metrics.latency_ms
    assert (found.teacher, found.student.basis, found.predicted) == (teacher, "measured", student)
    assert manifest.content == artifact.manifest.content


@pytest.mark.timeout(600)
def test_a_missed_limit_still_leaves_the_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(tmp_path / "out", "--target", "jetson-orin", "--size", "300kB", "--json")) == 1
    streams = capsys.readouterr()
    result = json.loads(streams.out)
    assert streams.err == ""
    assert result["manifest"]["gate"]["passed"] is False
    assert result["manifest"]["metrics"]["score"]["name"] == "unverified"
    assert result["manifest"]["metrics"]["latency_ms"]["student"]["basis"] == "predicted"
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert "accuracy unverified" in summary
    assert "latency is predicted, not measured" in summary
    assert run(["finish", str(tmp_path / "out")]) == 4


@pytest.mark.timeout(600)
def test_what_was_assumed_of_the_teacher_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(convolutional().state_dict(), tmp_path / "w.pt")
    factory = ["--factory", "tests.frontend.teachers:convolutional", "--target", "jetson-orin"]
    output = tmp_path / "out"
    assert run(["build", str(tmp_path / "w.pt"), *factory, "--output", str(output), *SHORT]) == 0
    streams = capsys.readouterr()
    assert "input 1x3x32x32 assumed" in streams.err, "before the work, so that it can be stopped"
    assert "! input 1x3x32x32 assumed" in streams.out
    assert "1x3x32x32 assumed" in json.loads((output / "manifest.json").read_text())["teacher"]["assumed"]
    assert "! input 1x3x32x32 assumed" in (output / "summary.txt").read_text()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--target", "hots-cpu"], 4, "did you mean host-cpu"),
        (["--target", "host-cpu", "--drop", "1%"], 2, "cannot be verified on synthetic inputs"),
        (["--target", "host-cpu", "--data", "nowhere"], 3, "nowhere does not exist"),
        (["--target", "host-cpu", "--pipeline", "canonicalize,shrink"], 2, "unknown pass 'shrink'"),
    ],
)
def test_refused_before_work(
    more: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(tmp_path / "out", *more)) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


FLOAT16 = ["--pipeline", "canonicalize,fold_batchnorm,quantize.cast{dtype=float16}"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", ["intel-npu-4000", pytest.param("qualcomm-8-gen-3", marks=pytest.mark.slow)])
def test_targets_without_float32(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPACTOR_QNN_PYTHON", raising=False)
    output = tmp_path / "out"
    assert run([*command(output, "--target", target), *FLOAT16]) == 0
    manifest = Artifact.open(output).manifest
    latencies = manifest.metrics.latency_ms
    assert latencies.teacher.basis == latencies.student.basis == "predicted"
    assert [record.passed for record in manifest.parity] == [True]
    assert run(["verify", str(output)]) == 0
    assert run(["finish", str(output)]) == 4, "this machine is another one"


def test_an_operator_that_an_npu_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(npu, "OPERATORS", npu.OPERATORS - {"Convolution"})
    assert run([*command(tmp_path / "out", "--target", "intel-npu-4000"), *FLOAT16]) == 4
    said = capsys.readouterr().err
    assert "the NPU compiler knows no Convolution" in said and "-> replace it" in said
    assert not (tmp_path / "out").exists()


def test_cuda_without_its_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run(command(output, "--target", "cuda")) == 0, "predicted, and checked on the CPU"
    if registry.load("compactor.backends", "cuda")().installed():
        return
    assert Artifact.open(output).manifest.metrics.latency_ms.student.basis == "predicted"
    assert run(["finish", str(output)]) == 4
    assert "this machine is not cuda" in capsys.readouterr().err
