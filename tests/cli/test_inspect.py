"""``compactor inspect`` on the shipped teacher."""

import json
from pathlib import Path

import pytest

from compactor.cli.main import run

TEACHER = Path(__file__).parents[2] / "examples" / "digits" / "teacher.pt2"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(TEACHER), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == 206_066
    assert [b["name"] for b in facts["blocks"]] == [f"blocks.{i}" for i in (0, 1, 2, 4, 5, 7, 8)]
    assert facts["blocks"][0]["macs"] == 2 * 24 * 24 * 9 * 64
    assert {g["kind"] for g in facts["groups"]} == {"channels"}
    assert any(p["tensor"] == "head.weight" and "output" in p["reason"] for p in facts["pinned"])


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(TEACHER)]) == 0
    text = capsys.readouterr().out
    for words in ("206,066 parameters", "stem.0.weight:0", "blocks.8", "output"):
        assert words in text


@pytest.mark.parametrize("content", [b"", b"not a model", TEACHER.read_bytes()[:5000]])
def test_bad_files(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "teacher.pt2"
    path.write_bytes(content)
    assert run(["inspect", str(path)]) == 3
    assert "teacher.pt2" in capsys.readouterr().err
