"""Outcomes: messages, exit codes, start-up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from compactor.cli.main import cli, run
from compactor.errors import InputError, ParityError, UnsupportedError, UsageError
from tests.report.samples import build

LIMITS = ("--latency", "2ms")


def test_help_is_fast_and_without_torch() -> None:
    code = (
        "import sys; from compactor.cli.main import run; code = run(['--help']);"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules), sys.modules.keys(); sys.exit(code)"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = os.times()  # processor time: holds on a loaded machine too
        seconds.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert min(seconds) < 0.3


def test_import_pulls_in_torch_at_most() -> None:
    heavy = "{'onnx', 'onnxruntime', 'openvino', 'nncf', 'transformers', 'scipy', 'PIL', 'sklearn'}"
    code = f"import sys, compactor; compactor.Program, compactor.Budget; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all commands."""
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(cli), ids=" ".join)
def test_every_command_has_help_and_json(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == 0
    text = capsys.readouterr().out
    if len(path) == 1:
        assert f"compactor {path[0]}" in text.split("Example")[1], "an example"
    if path not in (("targets",), ("passes",)):
        assert "--json" in text
        assert "--debug" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["biuld"], "No such command 'biuld'"),
        (["build"], "Missing argument 'TEACHER'"),
        (["build", "teacher.pt2", "--target", "host-cpu", "--latency", "5"], "latency '5' is not a number with a unit"),
        (["build", "teacher.pt2", "--target", "host-cpu", "--drop", "1"], "drop '1' is not a percentage"),
        (["build", "teacher.pt2", "--target", "host-cpu", "--effort", "huge"], "huge"),
        (["passes", "show", "canonicalise"], "unknown pass 'canonicalise'"),
    ],
)
def test_usage_errors(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "->" in error
    assert "Traceback" not in error


def _failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("fail")
    @click.option("--debug", is_flag=True, expose_value=False)
    @click.option("--json", is_flag=True, expose_value=False)
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.commands, "fail", fail)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("a", "b"), 2, "error: a\n  -> b\n"),
        (InputError("a", "b"), 3, "error: a\n  -> b\n"),
        (UnsupportedError("a", "b"), 4, "error: a\n  -> b\n"),
        (ParityError("a", "b"), 6, "error: a\n  -> b\n"),
        (KeyError("x"), 70, "internal error: KeyError: 'x'\n  -> run again with --debug"),
        (
            OSError(28, "No space left on device", "/data/out"),
            2,
            "cannot write /data/out: no space is left on the disk",
        ),
        (OSError(122, "Disk quota exceeded"), 2, "the disk quota is used up\n  -> free some space"),
        (KeyboardInterrupt(), 130, "interrupted\n  -> run the same command to go on: compactor fail"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(error, monkeypatch)
    assert run(["fail"]) == code
    streams = capsys.readouterr()
    assert words in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""
    assert run(["fail", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_errors_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _failing(InputError("no such file", "give another"), monkeypatch)
    assert run(["fail", "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"kind": "InputError", "message": "no such file", "remedy": "give another", "exit_code": 3}


def test_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(build(tmp_path / "out", p50=1.0).folder)
    assert run(["gate", folder]) == 0
    assert run(["gate", folder, "--latency", "2ms", "--size", "5B", "--drop", "1%"]) == 0
    assert "passed" in capsys.readouterr().out
    assert run(["gate", folder, "--latency", "500us"]) == 1
    assert "MISSED" in capsys.readouterr().out
    (tmp_path / "out" / "student.pt2").write_bytes(b"other")
    assert run(["gate", folder, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damage"] == ["student.pt2 has changed"]
    assert run(["gate", str(tmp_path)]) == 3


def test_verify_finds_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build(tmp_path / "out").folder
    (folder / "student.pt2").unlink()
    assert run(["verify", str(folder)]) == 1
    assert "student.pt2 is missing" in capsys.readouterr().out


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    shell = f"{sys.executable} -m compactor passes list | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr
