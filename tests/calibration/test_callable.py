"""Data from the user's own code."""

from pathlib import Path

import pytest
import torch

from compactor.calibration import callable as from_callable
from compactor.errors import InputError
from compactor.ir.program import Program

HERE = "tests.calibration.sources"


def test_arrays_splits_and_sources(features: Program) -> None:
    plain = from_callable.open(f"{HERE}:arrays", features, 0)
    assert (len(plain.train), len(plain.dev), plain.test) == (17, 3, None)
    split = from_callable.open(f"{HERE}:splits", features, 5)
    assert split.test is not None
    assert (len(split.train), len(split.dev), len(split.test)) == (20, 4, 20)
    assert bool((split.dev.take(torch.arange(4)).inputs[0] == 5).all())
    assert from_callable.open(f"{HERE}:source", features, 0).synthetic


def test_from_the_current_folder(features: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data_code.py").write_text("import numpy\ndef data():\n    return {'x': numpy.ones((9, 5))}\n")
    monkeypatch.chdir(tmp_path)
    assert len(from_callable.open("own_data_code:data", features, 0).train) == 8


@pytest.mark.parametrize(
    ("name", "words"),
    [("fails", "ConnectionError: no network"), ("text", "returned a str"), ("absent", "has no 'absent'")],
)
def test_misfits(name: str, words: str, features: Program) -> None:
    with pytest.raises(InputError, match=words):
        from_callable.open(f"{HERE}:{name}", features, 0)


def test_wrong_arrays_are_named(images: Program) -> None:
    with pytest.raises(InputError, match=r"arrays train: 'x' has shape \(20, 5\)"):
        from_callable.open(f"{HERE}:arrays", images, 0)
