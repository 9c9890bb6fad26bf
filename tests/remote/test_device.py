"""Models on a device over SSH: what comes back is what runs there, and nothing stays."""

import json
from pathlib import Path

import pytest

import compactor
from compactor.cli.main import run
from compactor.pipeline import remote
from compactor.pipeline.request import backend_of, resolve_target
from compactor.report.artifact import Artifact
from compactor.targets.remote.device import SshDevice
from tests.backends.models import MODELS
from tests.remote.server import Server, server, trust

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SHORT = "canonicalize,fold_batchnorm"


def test_facts(device: Server) -> None:
    target = resolve_target("host-cpu-onnx")
    facts = remote.check(SshDevice(device.url()), target, backend_of(target))
    assert facts.machine in target.machines
    assert facts.executable == str(device.python)
    assert facts.runtime and facts.runtime[0].isdigit()
    assert facts.temporary == str(device.temporary) and facts.free > 0


@pytest.mark.parametrize("name", ["host-cpu-onnx", "host-cpu"])
def test_outputs_and_latencies_are_those_of_there(name: str, device: Server, tmp_path: Path) -> None:
    target = resolve_target(name)
    backend = backend_of(target)
    if not backend.installed():
        pytest.skip(f"no {backend.name}")
    for architecture in ("residual", "encoder"):
        model = MODELS[architecture]()
        (tmp_path / architecture).mkdir()
        models = {"model": (model, backend.lower(model, target, tmp_path / architecture))}
        samples = model.example_inputs(batch=3, seed=1)
        found = remote.examine(SshDevice(device.url()), target, backend, models, samples)
        assert found.parity["model"].passed and found.parity["model"].samples == 3
        latency = found.latencies["model"]
        assert latency.basis == "measured" and latency.n is not None and latency.n >= 64


def test_finish_from_afar(artifact: Artifact, device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["finish", str(artifact.folder), "--device", device.url(), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    latencies = manifest["metrics"]["latency_ms"]
    assert latencies["student"]["basis"] == "measured" and latencies["predicted"]["p50"] == 1.0
    assert manifest["parity"][0]["passed"]
    assert manifest["environment"]["device"]["machine"] and "ssh" not in json.dumps(manifest)
    assert manifest["content"] == artifact.manifest.content
    assert run(["gate", str(artifact.folder), "--latency", "1us"]) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_build_measures_both_there(device: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    options = ["--target", "host-cpu-onnx", "--pipeline", SHORT, "--output", str(output), "--device", device.url()]
    assert run(["build", str(DIGITS / "teacher.pt2"), *options]) == 0
    manifest = Artifact.open(output).manifest
    assert manifest.environment["device"]["runtime"]
    assert manifest.metrics.latency_ms.teacher.basis == manifest.metrics.latency_ms.student.basis == "measured"
    assert "faster" in capsys.readouterr().out


@pytest.mark.slow
def test_profile_and_measure(device: Server, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = str(DIGITS / "teacher.pt2")
    assert run(["profile", teacher, "--target", "host-cpu-onnx", "--device", device.url(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"]["basis"] == "measured"
    measured = compactor.measure(compactor.load(teacher), "host-cpu-onnx", device.url())
    assert measured.basis == "measured" and measured.p99 is not None
    int8 = ["--precision", "int8", "--device", device.url()]
    assert run(["profile", teacher, "--target", "host-cpu-onnx", *int8]) == 2
    assert "cannot be measured at int8" in capsys.readouterr().err


def test_a_shell_that_talks_first(user: Path, python: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    force = 'ForceCommand echo Welcome; echo to the device; eval "$SSH_ORIGINAL_COMMAND"'
    with server(tmp_path, tmp_path / "t", python, user, force) as found:
        trust(user, found)
        target = resolve_target("host-cpu-onnx")
        assert remote.check(SshDevice(found.url()), target, backend_of(target)).machine
        assert found.settled() == []
