"""Writing whole or not at all, and what a disk that refuses is turned into."""

import errno
import json
from pathlib import Path
from typing import NoReturn

import pytest

from compactor.errors import InputError, InternalError, UsageError
from compactor.ir import archive
from compactor.pipeline import disk
from tests.disks import files_up_to
from tests.pipeline.support import program


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    disk.write_json(path, {"a": 1})
    with files_up_to(8), pytest.raises(UsageError, match="cannot write"), disk.writing(path, "free some space"):
        disk.write_json(path, {"a": "x" * 100})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_archive_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    teacher = program()
    refused = pytest.raises(UsageError, match="larger than allowed")
    with files_up_to(1000), refused as caught, disk.writing(tmp_path, "free some space"):
        archive.save(teacher, tmp_path / "a.pt2")
    assert caught.value.remedy == "free some space"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_refusals_are_usage_errors(tmp_path: Path, code: int) -> None:
    with pytest.raises(UsageError, match="cannot write"), disk.writing(tmp_path, "free some space"):
        raise OSError(code, "refused", str(tmp_path / "x"))


def _raise(first: Exception, then: Exception) -> NoReturn:
    """As torch's writer does, which reports the consequence."""
    try:
        raise first
    finally:
        raise then


def test_a_full_disk_behind_another_error(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))
    for wrapped in (RuntimeError("unexpected pos 64 vs 0"), InternalError("pass 'x' failed")):
        with pytest.raises(UsageError, match="x: no space is left"), disk.writing(tmp_path, "free some space"):
            _raise(full, then=wrapped)
    with pytest.raises(InputError), disk.writing(tmp_path, "free some space"):
        raise InputError("the teacher cannot be read", "give another") from full


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk.writing(tmp_path, "free some space"):
        (tmp_path / "none").read_text()
    with pytest.raises(RuntimeError, match="shape"), disk.writing(tmp_path, "free some space"):
        raise RuntimeError("shape mismatch")
