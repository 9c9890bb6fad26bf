"""``compactor bench``: one artifact over targets and devices, one measurement at a time on a machine."""

import json
import subprocess
import sys
import threading
import time

import pytest
import torch

from compactor.backend import Session
from compactor.cli.main import run
from compactor.pipeline.remote import open_device
from compactor.pipeline.sweep import sweep
from compactor.report.artifact import Artifact
from compactor.targets import measure
from tests.remote.server import Server, free_port


def test_targets_and_devices(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    targets = "jetson-orin,raspberry-pi-5,host-cpu-onnx"
    assert run(["bench", str(artifact.folder), "--targets", targets, "--device", device.url(), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = {(r["target"], r["device"]): r for r in rows}
    there = f"ssh://{device.url().split('//')[1].split('/')[0]}"
    assert set(found) == {
        ("jetson-orin", None), ("raspberry-pi-5", None), ("host-cpu-onnx", "this machine"), ("host-cpu-onnx", there),
    }  # fmt: skip
    assert all(r["predicted"]["basis"] == "predicted" for r in rows)
    for (_, place), row in found.items():
        assert (row["measured"] is None) == (row["error"] is None) == (place is None)
    local, remote = found["host-cpu-onnx", "this machine"], found["host-cpu-onnx", there]
    assert remote["error"] == pytest.approx(remote["predicted"]["p50"] / remote["measured"]["p50"] - 1)
    assert local["measured"]["p50"] / 5 < remote["measured"]["p50"] < 5 * local["measured"]["p50"]


def test_what_fails_stands_in_its_row(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = f"ssh://pi@127.0.0.1:{free_port()}"
    devices = ["--device", nowhere, "--device", f"host-cpu-onnx={device.url()}"]
    assert run(["bench", str(artifact.folder), *devices]) == 7
    streams = capsys.readouterr()
    assert "failed" in streams.out and "cannot talk to" in streams.err
    assert any("below" in line or "above" in line for line in streams.out.splitlines())


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ([], 2, "nothing to compare"),
        (["--targets", "jetson-orni"], 4, "did you mean"),
        (["--device", "board=ssh://pi@host"], 4, "unknown target 'board'"),
    ],
)
def test_refused(
    more: list[str], code: int, words: str, artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(artifact.folder), *more]) == code
    assert words in capsys.readouterr().err


def test_damage(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    (artifact.folder / "student.pt2").write_bytes(b"other")
    assert run(["bench", str(artifact.folder), "--targets", "jetson-orin"]) == 3


def test_two_addresses_of_one_machine_take_turns(artifact: Artifact, device: Server) -> None:
    """The second never has a worker while the first has one."""
    most, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.is_set():
            running = [c for c in device.processes().values() if "compactor.targets.remote.runner" in c]
            most = max(most, len(running))
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rows = sweep(artifact, devices=[(None, open_device(device.url())), (None, open_device(device.url()))])
    stop.set()
    watcher.join()
    assert [row.measured is not None for row in rows] == [True, True]
    assert most == 1


class Counted(Session):
    """A session that knows how many of its queries ran at once."""

    runtime = "counted"

    def __init__(self) -> None:
        self.running = self.most = 0

    def __call__(self, inputs: object) -> tuple[torch.Tensor, ...]:
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(1e-3)
        self.running -= 1
        return ()


def test_one_measurement_at_a_time_in_a_process() -> None:
    session = Counted()
    threads = [
        threading.Thread(target=measure.measure, args=(session, ()), kwargs={"queries": 20, "seconds": 0.05})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.most == 1


def test_one_measurement_at_a_time_across_processes() -> None:
    hold = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        f"s.bind({measure._NAME!r}); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        start = time.monotonic()
        threading.Timer(0.5, other.kill).start()
        measure.measure(Counted(), (), queries=2, seconds=0.01, warmup=0.0)
    assert time.monotonic() - start > 0.4
