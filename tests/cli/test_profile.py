"""``compactor profile`` on the shipped teacher and on an artifact."""

import json
from pathlib import Path
from typing import Any

import pytest

import compactor
from compactor.cli.main import run
from compactor.report.artifact import draft
from tests.report.samples import manifest

TEACHER = Path(__file__).parents[2] / "examples" / "digits" / "teacher.pt2"


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON of a profile."""
    assert run(["profile", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_the_kernels_sum_to_the_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, str(TEACHER), "--target", "raspberry-pi-5")
    times = [k["us"] for k in found["kernels"]]
    assert times == sorted(times, reverse=True)
    whole = found["predicted"]["p50"] * 1e3
    for sums in (times, list(found["kinds_us"].values()), list(found["bounds_us"].values())):
        assert sum(sums) + found["call_us"] == pytest.approx(whole)
    assert sum(k["share"] for k in found["kernels"]) <= 1 + 1e-9
    assert set(found["bounds_us"]) <= {"compute", "memory", "launch"}
    assert found["measured"] is None and found["error"] is None and found["recorded"] is None
    assert found["unmodelled"] == {}


def test_what_if_is_what_another_profile_says(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, str(TEACHER), "--target", "jetson-orin")
    changes = {w["change"]: w for w in found["what_if"]}
    int8 = facts(capsys, str(TEACHER), "--target", "jetson-orin", "--precision", "int8")
    assert changes["all at int8"]["ms"] == pytest.approx(int8["predicted"]["p50"])
    gains = [w["gain_ms"] for w in found["what_if"]]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 0
    saved = changes["without block blocks.4"]["gain_ms"] * 1e3
    assert saved == pytest.approx(found["blocks_us"]["blocks.4"]), "a block costs what its kernels cost"
    assert any(change.startswith("half of ") for change in changes)


def test_measured_beside_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, str(TEACHER), "--target", "host-cpu-onnx")
    assert found["measured"]["basis"] == "measured" and found["predicted"]["basis"] == "predicted"
    assert found["error"] == pytest.approx(found["predicted"]["p50"] / found["measured"]["p50"] - 1)


def test_an_artifact_says_what_its_manifest_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with draft(tmp_path / "out") as work:
        compactor.load(TEACHER).save(work.folder / "student.pt2")
        folder = str(work.finish(manifest(p50=1.5)).folder)
    found = facts(capsys, folder, "--target", "jetson-orin-nano")
    assert found["recorded"] == {"target": "host-cpu", "latencies": [{"basis": "measured", "n": 100, "p50": 1.5}]}
    assert run(["profile", folder, "--target", "jetson-orin-nano", "--top", "2"]) == 0
    text = capsys.readouterr().out
    assert "the artifact's manifest, for host-cpu: 1.500 ms (measured)" in text
    assert "21 more" in text and "launch" in text
    (tmp_path / "out" / "student.pt2").write_bytes(b"other")
    assert run(["profile", folder, "--target", "jetson-orin-nano"]) == 3
    assert "student.pt2 has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([str(TEACHER), "--target", "jetson-orni"], 4, "did you mean jetson-orin"),
        ([str(TEACHER), "--target", "jetson-orin", "--precision", "bfloat16"], 4, "does not run 'bfloat16'"),
        (["nowhere.pt2", "--target", "jetson-orin"], 3, "nowhere.pt2"),
        ([str(TEACHER)], 2, "Missing option '--target'"),
        ([str(TEACHER), "--target", "jetson-orin", "--top", "0"], 2, "--top"),
    ],
)
def test_errors(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", *arguments]) == code
    error = capsys.readouterr().err
    assert words in error and "->" in error and "Traceback" not in error
