"""Writing to disk so that a kill leaves nothing half-written, and a full disk says so."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compactor.errors import UsageError

_REFUSED = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EFBIG: "the file would be larger than allowed",
    errno.ENOTDIR: "a part of the path is a file",
}
_LOW = 1 << 20


@contextmanager
def writing(path: Path, remedy: str) -> Iterator[None]:
    """Turn what the disk refuses while writing below ``path`` into a `UsageError` with this remedy."""
    try:
        yield
    except OSError as error:
        reason = _REFUSED.get(error.errno or 0)
        if reason is None:
            raise
        raise UsageError(f"cannot write {error.filename or path}: {reason}", remedy) from error
    except RuntimeError as error:
        # PyTorch and OpenVINO writers report a full disk as a RuntimeError of their own wording.
        if shutil.disk_usage(_existing(path)).free > _LOW:
            raise
        raise UsageError(f"cannot write below {path}: no space is left on the disk", remedy) from error


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def file_hash(path: Path) -> str:
    """sha256 of a file's content."""
    import hashlib

    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
