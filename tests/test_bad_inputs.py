"""Bad input through the command line: its exit code, a message with the value and the remedy, nothing half-written."""

import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compactor.errors import ExitCode
from tests.disks import small_disk
from tests.models import example, program

pytest.importorskip("openvino")

TARGET = ("--target", "host-cpu")
FAST = ("--pipeline", "canonicalize")


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    output: str
    error: str


@dataclass(frozen=True)
class Bench:
    """A folder with a good teacher and good data, where a command is run and must leave nothing."""

    folder: Path
    teacher: Path
    data: Path

    def command(self, *arguments: str | Path) -> list[str]:
        """``compactor build`` with these arguments, writing to ``out``."""
        start = "from compactor.cli.main import entry; entry()"
        return [sys.executable, "-c", start, "build", *map(str, arguments), "--output", str(self.folder / "out")]

    def environment(self) -> dict[str, str]:
        """A store of its own."""
        return {**os.environ, "COMPACTOR_STORE": str(self.folder / "store"), "OMP_NUM_THREADS": "1"}

    def run(self, *arguments: str | Path, **options: Any) -> Result:
        """Run in a process of its own."""
        done = subprocess.run(
            self.command(*arguments), env=self.environment(), capture_output=True, text=True, check=False, **options
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def call(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Sequence[Any]
    ) -> Result:
        """Run in this process, as the console script does."""
        from compactor.cli.main import run

        monkeypatch.setenv("COMPACTOR_STORE", str(self.folder / "store"))
        code = run(self.command(*arguments)[3:])
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    def refused(self, result: Result, code: ExitCode, *words: str) -> None:
        """The exit code, every word in the message, a remedy, no traceback, no output."""
        assert result.code == code, f"exit {result.code}\n{result.error}"
        message = " ".join(result.error.split())
        for word in words:
            assert word in message, f"{word!r} is not in: {result.error}"
        assert "->" in message, f"no remedy in: {result.error}"
        assert "Traceback" not in result.error
        self.clean()

    def clean(self) -> None:
        """No artifact, whole or partial; locks may stay."""
        left = [p.name for p in self.folder.iterdir() if p.name.lstrip(".").startswith("out")]
        assert all(name.endswith(".lock") for name in left), left


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher archive and a data set that it can be built from."""
    folder = tmp_path_factory.mktemp("good")
    program("resnet_b").save(folder / "teacher.pt2")
    arrays(folder / "train.npz")
    return folder / "teacher.pt2", folder / "train.npz"


@pytest.fixture
def bench(tmp_path: Path, good: tuple[Path, Path]) -> Bench:
    """The good teacher and data, and an empty folder."""
    return Bench(tmp_path, *good)


@pytest.fixture
def refuse(bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``refuse(arguments, code, *words)`` runs a build in this process and checks that it is refused."""

    def check(arguments: Sequence[Any], code: ExitCode, *words: str) -> None:
        bench.refused(bench.call(monkeypatch, capsys, arguments), code, *words)

    return check


def arrays(path: Path, *, shape: tuple[int, ...] = (48, 32, 32, 3), top: int = 9, **changes: Any) -> Path:
    """An npz of random images with labels 0..``top``."""
    rng = np.random.default_rng(0)
    values = {"x": rng.integers(0, 256, shape, dtype=np.uint8), "y": np.arange(shape[0]) % (top + 1)}
    np.savez(path, **{**values, **changes})
    return path


# -- teachers ------------------------------------------------------------------------------------------------------


def test_missing_file(bench: Bench) -> None:
    path = bench.folder / "nowhere.pt2"
    bench.refused(bench.run(path, *TARGET), ExitCode.BAD_INPUT, "nowhere.pt2", "does not exist")


def test_empty_file(refuse: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.pt2"
    path.touch()
    refuse([path, *TARGET], ExitCode.BAD_INPUT, "empty.pt2", "is empty")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_archive(refuse: Any, bench: Bench, tmp_path: Path, share: float) -> None:
    whole = bench.teacher.read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(whole[: int(len(whole) * share)])
    refuse([path, *TARGET], ExitCode.BAD_INPUT, "cut.pt2", "truncated or damaged")


def test_damaged_archive(refuse: Any, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt2"
    rewrite(bench.teacher, path, "models/model.json", b'{"graph": 7}')
    refuse([path, *TARGET], ExitCode.BAD_INPUT, "damaged.pt2")


def test_noise(refuse: Any, tmp_path: Path) -> None:
    path = tmp_path / "noise.pt2"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    refuse([path, *TARGET], ExitCode.BAD_INPUT, "noise.pt2", "unknown format")


@pytest.mark.parametrize("form", ["torch", "plain", "archive"])
def test_pickle_that_runs_code(refuse: Any, bench: Bench, tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "bomb.pt", tmp_path / "exploded"
    if form == "torch":
        torch.save({"weight": Bomb(marker)}, path)
    elif form == "plain":
        path.write_bytes(pickle.dumps(Bomb(marker)))
    else:
        held = io.BytesIO()
        torch.save(Bomb(marker), held)
        rewrite(bench.teacher, path, "data/sample_inputs/model.pt", held.getvalue())
    refuse([path, *TARGET], ExitCode.BAD_INPUT, "bomb.pt")
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017 - the bomb is live: loaded carelessly it goes off, whatever follows
        torch.load(io.BytesIO(held.getvalue()) if form == "archive" else path, weights_only=False)["x"]
    assert marker.exists()


def test_trusted_pickle_is_not_the_default(refuse: Any, tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), path)
    refuse([path, *TARGET], ExitCode.BAD_INPUT, "module.pt", "could run code", "--trust-pickle")


def test_state_dict_without_factory(refuse: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(example("resnet_b")[0].state_dict(), path)
    refuse([path, *TARGET], ExitCode.BAD_INPUT, "weights.pt", "state dict", "--factory")


def test_state_dict_of_another_model(refuse: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(2, 2)}, path)
    refuse(
        [path, *TARGET, "--factory", "tests.models.resnets:option_b"], ExitCode.BAD_INPUT, "weights.pt", "does not fit"
    )


def test_nan_weights(refuse: Any, tmp_path: Path) -> None:
    good = program("resnet_b")
    name = sorted(good.trainable)[0]
    bad = good.state[name].clone()
    bad.view(-1)[0] = float("nan")
    good.with_state({name: bad}).save(tmp_path / "nan.pt2")
    refuse([tmp_path / "nan.pt2", *TARGET], ExitCode.BAD_INPUT, name)


# -- data ----------------------------------------------------------------------------------------------------------


def test_missing_data(refuse: Any, bench: Bench, tmp_path: Path) -> None:
    refuse([bench.teacher, *TARGET, "--data", tmp_path / "no-data"], ExitCode.BAD_INPUT, "no-data")


@pytest.mark.parametrize("shape", [(48, 32, 32, 4), (48, 32, 32), (48, 8)])
def test_wrong_input_shapes(refuse: Any, bench: Bench, tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = arrays(tmp_path / "train.npz", shape=shape)
    refuse([bench.teacher, *TARGET, "--data", data], ExitCode.BAD_INPUT, str(shape[-1]), "32")


def test_labels_exceed_classes(refuse: Any, bench: Bench, tmp_path: Path) -> None:
    data = arrays(tmp_path / "train.npz", top=16)
    refuse([bench.teacher, *TARGET, "--data", data], ExitCode.BAD_INPUT, "label 10", "10 logits")


def test_fewer_labels_than_samples(refuse: Any, bench: Bench, tmp_path: Path) -> None:
    data = arrays(tmp_path / "train.npz", y=np.zeros(7, dtype=np.int64))
    refuse([bench.teacher, *TARGET, "--data", data], ExitCode.BAD_INPUT, "7", "48")


def test_data_that_runs_code(refuse: Any, bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "exploded"
    data = arrays(tmp_path / "train.npz", x=np.array([Bomb(marker)], dtype=object))
    refuse([bench.teacher, *TARGET, "--data", data], ExitCode.BAD_INPUT, "train.npz")
    assert not marker.exists()


def test_truncated_data(refuse: Any, bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "train.npz"
    data.write_bytes(bench.data.read_bytes()[:1000])
    refuse([bench.teacher, *TARGET, "--data", data], ExitCode.BAD_INPUT, "train.npz")


# -- requests ------------------------------------------------------------------------------------------------------


def test_unknown_target(refuse: Any, bench: Bench) -> None:
    refuse([bench.teacher, "--target", "jetson-orim"], ExitCode.UNSUPPORTED, "jetson-orim", "jetson-orin")


def test_unknown_pass(refuse: Any, bench: Bench) -> None:
    refuse([bench.teacher, *TARGET, "--pipeline", "canonicalise"], ExitCode.USAGE, "canonicalise", "canonicalize")


def test_unknown_option_of_a_pass(refuse: Any, bench: Bench) -> None:
    refuse([bench.teacher, *TARGET, "--pipeline", "search.uniform{wdth=3}"], ExitCode.USAGE, "wdth")


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (("--latency", "0.01us"), ("impossible", "--latency")),
        (("--size", "10B"), ("10", "impossible", "--size")),
        (("--latency", "5"), ("'5'", "5ms")),
        (("--size", "-1MB"), ("-1MB",)),
        (("--drop", "1"), ("'1'", "1%")),
    ],
)
def test_impossible_budget(refuse: Any, bench: Bench, limit: tuple[str, str], words: tuple[str, ...]) -> None:
    refuse([bench.teacher, *TARGET, *FAST, "--data", bench.data, *limit], ExitCode.USAGE, *words)


def test_drop_without_data(refuse: Any, bench: Bench) -> None:
    refuse([bench.teacher, *TARGET, "--drop", "1%"], ExitCode.USAGE, "--drop", "--data")


# -- disk and folders ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("place", "share"), [("--output", 0.1), ("--store", 0.1), ("TMPDIR", 0.1), ("TMPDIR", 1.5)])
def test_full_disk(bench: Bench, place: str, share: float) -> None:
    """``share`` of what the teacher takes fits: at 1.5 the ONNX file does, and the IR that is made from it does not."""
    weights = sum(t.nbytes for t in program("resnet_b").state.values())
    environment = bench.environment()
    command = bench.command(bench.teacher, *TARGET, *FAST, "--data", bench.data)
    with small_disk(bench.folder / "tiny", int(share * weights)) as folder:
        match place:
            case "--output":
                command[-1] = str(folder / "out")
            case "--store":
                environment["COMPACTOR_STORE"] = str(folder / "store")
            case _:
                environment["TMPDIR"] = str(folder)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        result = Result(done.returncode, done.stdout, done.stderr)
        bench.refused(result, ExitCode.USAGE, "no space is left", "tiny", place)
        assert not [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")]


@pytest.mark.slow
def test_file_size_limit(bench: Bench) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = bench.run(bench.teacher, *TARGET, *FAST, "--data", bench.data, preexec_fn=limit)
    bench.refused(result, ExitCode.USAGE, "larger than allowed")


def test_output_that_is_something_else(bench: Bench) -> None:
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / "thesis.tex").write_text("years of work")
    result = bench.run(bench.teacher, *TARGET, *FAST)
    assert result.code == ExitCode.USAGE and "not an artifact" in result.error and "->" in result.error
    assert (bench.folder / "out" / "thesis.tex").read_text() == "years of work"


@pytest.mark.slow
def test_two_builds_in_one_folder(bench: Bench) -> None:
    command = bench.command(bench.teacher, *TARGET, *FAST, "--data", bench.data)
    first = subprocess.Popen(
        command, env=bench.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(bench.folder / ".out.partial", first)
        first.send_signal(signal.SIGSTOP)  # it holds the folder for as long as the second one needs
        second = bench.run(bench.teacher, *TARGET, *FAST, "--data", bench.data)
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=120)
    finally:
        first.kill()
    assert second.code == ExitCode.USAGE, second.error
    assert "another build is writing" in second.error and "--output" in second.error
    assert first.returncode == ExitCode.OK, said
    assert (bench.folder / "out" / "manifest.json").is_file()


def wait_for(path: Path, process: "subprocess.Popen[str]", seconds: float = 60) -> None:
    """Wait until a path appears while the process runs."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def rewrite(source: Path, destination: Path, member: str, content: bytes) -> None:
    """Copy a zip archive with one member replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED) as new:
        names = [name for name in old.namelist() if name.endswith(member)]
        assert len(names) == 1, (member, old.namelist())
        for name in old.namelist():
            new.writestr(name, content if name in names else old.read(name))
