"""The whole suite: one thread per worker, a time limit per folder, small real architectures, the shared data."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: the workers share the cores

from compactor.ir.program import Program
from tests.models import ARCHITECTURES, program

HERE = Path(__file__).parent
SECONDS = {"report": 60}
DEFAULT, SLOW = 180, 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test the time limit of its folder; slow ones a long one."""
    for item in items:
        if item.get_closest_marker("timeout") is not None:
            continue
        folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        limit = SLOW if item.get_closest_marker("slow") else SECONDS.get(folder, DEFAULT)
        item.add_marker(pytest.mark.timeout(limit))


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never read or fill the user's own store."""
    monkeypatch.setenv("COMPACTOR_STORE", str(tmp_path_factory.getbasetemp() / "store"))


@pytest.fixture(params=list(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    """The name of every architecture of `tests.models`, one after the other."""
    return str(request.param)


@pytest.fixture
def architecture_program(architecture: str) -> Program:
    """The Program of every architecture."""
    return program(architecture)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with shared data and teachers; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("COMPACTOR_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "teachers").is_dir():
        pytest.skip(f"no shared data at {folder}; set COMPACTOR_SHARED")
    return folder
