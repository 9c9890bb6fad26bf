"""What can go wrong with a device: the exit code, what stays there (nothing), and the artifact as it was."""

import hashlib
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compactor.cli.main import run
from compactor.report.artifact import Artifact
from tests.disks import small_disk
from tests.remote.proxy import Proxy, proxy
from tests.remote.server import Server, bare_python, free_port, key, python_without_runtimes, server, trust

WORKER = "compactor.targets.remote.runner"


def content(artifact: Artifact) -> str:
    """A hash over all files of the artifact."""
    files = sorted(p for p in artifact.folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in files)).hexdigest()


def fails(artifact: Artifact, url: str, code: int, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What `finish` says when it ends with this exit code; the artifact must be as it was."""
    before = content(artifact)
    assert run(["finish", str(artifact.folder), "--device", url, *more]) == code
    assert content(artifact) == before
    text = capsys.readouterr().err
    assert "->" in text, "every error says what to do"
    return text


@pytest.mark.parametrize("url", ["pi@host", "ssh://", "ssh://pi@host:0", "ssh://pi@host:x", "ssh://pi:secret@host"])
def test_no_address(url: str, artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ssh" in fails(artifact, url, 2, capsys)


def test_no_such_scheme(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert "known: ssh" in fails(artifact, "adb://phone", 2, capsys)


def test_unreachable(artifact: Artifact, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = fails(artifact, f"ssh://pi@127.0.0.1:{free_port()}", 7, capsys)
    assert "cannot talk to ssh://pi@127.0.0.1" in text


def test_nobody_answers(artifact: Artifact, home: Path, capsys: pytest.CaptureFixture[str],
                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("compactor.targets.remote.connection.CONNECT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = fails(artifact, f"ssh://pi@127.0.0.1:{silent.getsockname()[1]}", 7, capsys)
    assert "cannot talk to" in text


def test_unknown_host(
    artifact: Artifact, running: Server, home: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path))
    text = fails(artifact, running.url(), 7, capsys)
    assert "is unknown: SHA256:" in text and f"ssh -p {running.port}" in text
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("UserKnownHostsFile none\nStrictHostKeyChecking no\n")
    assert "is unknown" in fails(artifact, running.url(), 7, capsys), "whatever the configuration says"


def test_another_host_key(
    artifact: Artifact, running: Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / ".ssh").mkdir()
    other = key(tmp_path / "other").with_suffix(".pub").read_text()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{running.port} {other}")
    monkeypatch.setenv("HOME", str(tmp_path))
    text = fails(artifact, running.url(), 7, capsys)
    assert "another host key than before" in text and f"ssh-keygen -R '[127.0.0.1]:{running.port}'" in text


def test_login_refused(
    artifact: Artifact, running: Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / ".ssh").mkdir()
    key(tmp_path / ".ssh" / "id_ed25519")
    trust(tmp_path, running)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "refuses the login" in fails(artifact, running.url(), 7, capsys)


def test_no_python(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no /opt/no/python" in fails(artifact, device.url(python="/opt/no/python"), 5, capsys)


def test_runtime_missing(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    text = fails(artifact, device.url(python=python_without_runtimes()), 5, capsys)
    assert "has no onnxruntime" in text and "-m pip install 'onnxruntime>=" in text


def test_runtime_too_old(
    artifact: Artifact, device: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = bare_python(tmp_path / "old")
    site = next((tmp_path / "old" / "lib").glob("python*")) / "site-packages"
    record = next(site.glob("onnxruntime-*.dist-info"))
    metadata, names = (record / "METADATA").read_text(), (record / "top_level.txt").read_text()
    record.unlink()
    (old := site / "onnxruntime-1.4.0.dist-info").mkdir()
    version = next(line for line in metadata.splitlines() if line.startswith("Version:"))
    (old / "METADATA").write_text(metadata.replace(version, "Version: 1.4.0", 1))
    (old / "top_level.txt").write_text(names)
    assert "has onnxruntime 1.4.0, at least" in fails(artifact, device.url(python=python), 5, capsys)


@pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine could be that device")
def test_another_architecture(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = artifact.rewrite(artifact.manifest.model_copy(update={"target": "raspberry-pi-5"}))
    text = fails(artifact, device.url(), 4, capsys)
    assert platform.machine() in text and "raspberry-pi-5 is aarch64" in text


def test_a_runtime_that_refuses_the_model(
    artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifact.folder / "onnx" / "model.onnx").write_bytes(b"not a model")
    artifact = artifact.rewrite(artifact.manifest)
    assert "cannot load the student" in fails(artifact, device.url(), 4, capsys)


def test_too_little_memory(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (artifact.folder / "onnx" / "model.onnx").write_bytes(hungry())
    text = fails(artifact.rewrite(artifact.manifest), device.url(), 7, capsys)
    assert "too little memory" in text and "--size" in text


def hungry() -> bytes:
    """A model that takes the same inputs and needs four terabytes in between."""
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, 1])
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"]),
        helper.make_node("Expand", ["mean", "shape"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["output"]),
    ]
    shape = numpy_helper.from_array(np.array([1, 1, 1 << 20, 1 << 20]), "shape")
    graph = helper.make_graph(nodes, "hungry", [image], [output], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_no_space_from_the_start(
    artifact: Artifact, user: Path, python: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        small_disk(tmp_path / "small", 64 << 10) as small,
        server(tmp_path, small, python, user) as found,
    ):
        trust(user, found)
        assert "MB free in" in fails(artifact, found.url(), 2, capsys)
        assert found.settled() == []


def test_no_space_in_the_middle(
    artifact: Artifact, user: Path, python: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t").mkdir()
    force = 'ForceCommand ulimit -f 40; eval "$SSH_ORIGINAL_COMMAND"'  # files of 20 or 40 KiB at most
    with server(tmp_path, tmp_path / "t", python, user, force) as found:
        trust(user, found)
        assert "File too large" in fails(artifact, found.url(), 2, capsys)
        assert found.settled() == []


def test_slower_than_the_limit(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    text = fails(artifact, device.url(), 7, capsys, "--device-minutes", "0.01")
    assert "was not done within 0.01 minutes" in text and "--device-minutes" in text
    assert device.settled() == []


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until it holds, or the time is over."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)


def at_the_handshake(relay: Proxy, device: Server) -> None:
    wait(lambda: relay.sent > 100)


def after_the_login(relay: Proxy, device: Server) -> None:
    wait(lambda: device.busy("FileIO"))


def in_the_upload(relay: Proxy, device: Server) -> None:
    wait(lambda: any(device.temporary.iterdir()))


def at_work(relay: Proxy, device: Server) -> None:
    wait(lambda: device.busy(WORKER))


def before_the_answer(relay: Proxy, device: Server) -> None:
    wait(lambda: device.busy(WORKER))
    relay.hold(up=False)
    wait(lambda: not any(device.temporary.iterdir()))


POINTS = [at_the_handshake, after_the_login, in_the_upload, at_work, before_the_answer]


@pytest.mark.parametrize("point", POINTS)
def test_the_connection_is_cut(
    point: Callable[[Proxy, Server], None],
    artifact: Artifact, device: Server, home: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with proxy(device.port) as relay:
        trust(home, device, relay.port)
        watcher = threading.Thread(target=lambda: (point(relay, device), relay.cut()))
        watcher.start()
        text = fails(artifact, device.url(relay.port), 7, capsys)
        watcher.join()
    assert "lost" in text or "cannot talk" in text
    assert device.settled() == []


@pytest.mark.slow
def test_a_connection_that_falls_silent(
    artifact: Artifact, device: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with proxy(device.port) as relay:
        trust(home, device, relay.port)

        def silence() -> None:
            at_work(relay, device)
            relay.hold(up=True)
            relay.hold(up=False)

        watcher = threading.Thread(target=silence)
        watcher.start()
        fails(artifact, device.url(relay.port), 7, capsys)
        watcher.join()
        assert device.settled(60) == [], "while the connection is still open"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_command_is_interrupted(number: signal.Signals, artifact: Artifact, device: Server) -> None:
    before = content(artifact)
    command = [sys.executable, "-m", "compactor", "finish", str(artifact.folder), "--device", device.url()]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    wait(lambda: device.busy(WORKER))
    for worker, words in device.processes().items():
        if any(WORKER in word for word in words):
            os.kill(worker, signal.SIGSTOP)  # it cannot be done before the signal comes
    started.send_signal(number)
    _, text = started.communicate(timeout=60)
    assert started.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), text
    assert device.settled() == []
    assert content(artifact) == before


@pytest.mark.parametrize("victim", [WORKER, "FileIO"])
def test_something_is_killed_there(
    victim: str, artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        wait(lambda: device.busy(WORKER))
        for number, command in device.processes().items():
            if any(victim in part for part in command):
                os.kill(number, signal.SIGKILL)

    watcher = threading.Thread(target=kill)
    watcher.start()
    text = fails(artifact, device.url(), 7, capsys)
    watcher.join()
    assert ("killed by signal 9" in text) == (victim == WORKER)
    assert device.settled() == []
