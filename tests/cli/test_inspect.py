"""``compactor inspect`` on the shipped teacher."""

import json
from pathlib import Path

import pytest
import torch

from compactor.cli.main import run
from compactor.ir.space import SearchSpace
from compactor.passes.canonicalize.canonicalize import canonical
from tests.backends.models import quantized, residual
from tests.frontend.teachers import convolutional
from tests.models import program

TEACHER = Path(__file__).parents[2] / "examples" / "digits" / "teacher.pt2"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(TEACHER), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == 206_066
    assert [b["name"] for b in facts["blocks"]] == [f"blocks.{i}" for i in (0, 1, 2, 4, 5, 7, 8)]
    assert facts["blocks"][0]["macs"] == 2 * 24 * 24 * 9 * 64
    assert {g["kind"] for g in facts["groups"]} == {"channels"}
    assert any(p["tensor"] == "head.weight" and "output" in p["reason"] for p in facts["pinned"])


def test_groups_are_those_that_a_build_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = program("gpt2")
    raw.save(tmp_path / "gpt2.pt2")
    assert run(["inspect", str(tmp_path / "gpt2.pt2"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    searched, exported = SearchSpace(canonical(raw)[0]), SearchSpace(raw)
    assert names(searched) != names(exported), "the export alone has other groups"
    assert ([g["name"] for g in facts["groups"]], [b["name"] for b in facts["blocks"]]) == names(searched)
    assert facts["fingerprint"] == raw.fingerprint, "of the teacher, as the manifest has it"


def names(space: SearchSpace) -> tuple[list[str], list[str]]:
    """Of groups and blocks."""
    return [g.name for g in space.groups], [b.name for b in space.blocks]


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(TEACHER)]) == 0
    text = capsys.readouterr().out
    for words in ("206,066 parameters", "stem.0.weight:0", "blocks.8", "output"):
        assert words in text


def test_what_was_assumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(convolutional().state_dict(), tmp_path / "w.pt")
    arguments = ["inspect", str(tmp_path / "w.pt"), "--factory", "tests.frontend.teachers:convolutional"]
    assert run(arguments) == 0
    assert "! input 1x3x32x32 assumed" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    assert "1x3x32x32 assumed" in json.loads(capsys.readouterr().out)["assumed"]
    assert run(["inspect", str(TEACHER), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["assumed"] is None


@pytest.mark.parametrize("content", [b"", b"not a model", TEACHER.read_bytes()[:5000]])
def test_bad_files(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "teacher.pt2"
    path.write_bytes(content)
    assert run(["inspect", str(path)]) == 3
    assert "teacher.pt2" in capsys.readouterr().err


def test_quantizers_of_an_int8_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "int8.pt2")
    whole = quantized(residual())
    whole.save(path)
    assert run(["inspect", path, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["quantizers"]
    assert [f["source"] for f in facts] == [q.source for q in whole.quantization]
    assert {f["bits"] for f in facts} == {8} and all(f["readers"] for f in facts)
    assert run(["inspect", path]) == 0
    assert "quantizers: what is rounded, and how" in capsys.readouterr().out
    assert run(["inspect", str(TEACHER)]) == 0
    assert "quantizers" not in capsys.readouterr().out
