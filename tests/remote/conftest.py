"""One server and one artifact for all tests of a worker; every test has its own folder for what it leaves."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from compactor.pipeline.request import backend_of, resolve_target
from compactor.report.artifact import Artifact, draft
from compactor.report.manifest import LoweredModel
from tests.backends.models import residual
from tests.remote.server import Server, bare_python, key, server, trust
from tests.report.samples import manifest


@pytest.fixture(scope="session")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a key to log in with."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".ssh").mkdir(mode=0o700)
    key(folder / ".ssh" / "id_ed25519")
    return folder


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device's Python: runtimes, no torch, nothing of ours."""
    return bare_python(tmp_path_factory.mktemp("device") / "venv")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, user: Path, python: Path) -> Iterator[Server]:
    """The server."""
    temporary = tmp_path_factory.mktemp("temporary")
    with server(tmp_path_factory.mktemp("sshd"), temporary, python, user) as found:
        trust(user, found)
        yield found


@pytest.fixture
def home(user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, as this process sees it."""
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return user


@pytest.fixture
def device(running: Server, home: Path) -> Iterator[Server]:
    """The server, trusted by this process; nothing may be left there."""
    yield running
    assert running.settled() == []


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact for this machine through ONNX Runtime."""
    target, program = resolve_target("host-cpu-onnx"), residual()
    with draft(tmp_path_factory.mktemp("built") / "artifact") as work:
        lowered = backend_of(target).lower(program, target, work.subfolder("onnx"))
        program.save(work.folder / "student.pt2")
        model = LoweredModel(
            backend="onnx", folder="onnx", files=list(lowered.files), precision="float32", options=lowered.options
        )
        whole = manifest(basis="predicted").model_copy(update={"target": target.name, "lowered": [model]})
        return work.finish(whole).folder


@pytest.fixture
def artifact(built: Path, tmp_path: Path) -> Artifact:
    """A copy of the artifact, to be changed."""
    return Artifact.open(copytree(built, tmp_path / "artifact"))
