"""``compactor search``, and a build from what it found."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from compactor.cli.main import run

TEACHER = Path(__file__).parents[2] / "examples" / "digits" / "teacher.pt2"
SHORT = ["--candidates", "40", "--workers", "1", "--score", "params+macs"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_and_builds_for_two_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found"
    asked = ["search", str(TEACHER), "--target", "raspberry-pi-5", "--latency", "70%", *SHORT, "-o", str(found)]
    assert run(asked) == 0
    text = capsys.readouterr().out
    assert "40 candidates within" in text and "*" in text and f"search: {found}" in text
    assert ET.parse(found / "pareto.svg").getroot().tag.endswith("svg")
    before = (found / "search.json").read_bytes()
    assert run([*asked, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["search"] == str(found) and summary["candidates"] == 40
    assert (found / "search.json").read_bytes() == before
    assert all(row["latency_ms"] <= summary["goal_ms"] + 1e-3 for row in summary["archive"])
    for target in ("raspberry-pi-5", "jetson-orin"):
        output = tmp_path / target
        built = [
            "build",
            str(TEACHER),
            "--target",
            target,
            "--latency",
            "60%",
            "--search",
            str(found),
            "--effort",
            "quick",
        ]
        assert run([*built, "--output", str(output), "--pipeline", "canonicalize,fold_batchnorm,quantize.ptq"]) == 0
        manifest = json.loads((output / "manifest.json").read_text())
        step = next(h for h in manifest["history"] if h["pass"] == "search.stored")
        assert step["metrics"]["latency_ms"] <= step["metrics"]["goal_ms"]
        assert manifest["student"]["parameters"] != manifest["teacher"]["parameters"]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--target", "raspberry-pi-5", "--score", "relatoin"], 2, "did you mean relation"),
        (["--target", "raspbery-pi-5"], 4, "did you mean raspberry-pi-5"),
        (["--target", "raspberry-pi-5", "--latency", "1us"], 2, "impossible"),
        (["--target", "raspberry-pi-5", "--latency", "0.1%", *SHORT], 2, "the closest"),
        ([], 2, "Missing option '--target'"),
    ],
)
def test_errors(more: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", str(TEACHER), *more, "-o", str(tmp_path / "found")]) == code
    message = capsys.readouterr().err
    assert words in message and "->" in message and "Traceback" not in message
    assert not (tmp_path / "found").exists()


def test_other_folders_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("")
    assert run(["search", str(TEACHER), "--target", "raspberry-pi-5", "-o", str(tmp_path)]) == 2
    assert "is not a search" in capsys.readouterr().err
    build = [
        "build",
        str(TEACHER),
        "--target",
        "raspberry-pi-5",
        "--search",
        str(tmp_path),
        "-o",
        str(tmp_path / "out"),
    ]
    assert run(build) == 2
    assert "does not exist" in capsys.readouterr().err
