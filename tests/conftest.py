"""Fixtures of the whole suite: small real architectures, and where the shared test data lies."""

import os
from pathlib import Path

import pytest

from compactor.ir.program import Program
from tests.models import ARCHITECTURES, program


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
