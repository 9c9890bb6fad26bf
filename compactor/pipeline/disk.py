"""Writing to disk so that a kill leaves nothing half-written, and a full disk says so."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from compactor.errors import InternalError, UsageError

_FULL = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed",
}
_REFUSED = {
    **_FULL,
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.ENOTDIR: "a part of the path is a file",
}
_LOW = 1 << 20


@contextmanager
def writing(path: Path, remedy: str) -> Iterator[None]:
    """Turn what the disk refuses while writing below ``path`` into a `UsageError` with this remedy.

    A full disk is found behind other errors too: writers in C++ report a RuntimeError of their own wording, and the
    manager an internal error of the pass that met it.
    """
    try:
        yield
    except (OSError, RuntimeError, InternalError) as error:
        message = _refused(error, path)
        if message is None:
            raise
        raise UsageError(message, remedy) from error


def full(error: BaseException) -> str | None:
    """What a full disk, behind an error or itself, is called; None when it is something else."""
    found = _full(error)
    return None if found is None else _sentence(found, None)


def _refused(error: BaseException, path: Path) -> str | None:
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return _sentence(error, path)
    found = _full(error)
    if found is not None:
        return _sentence(found, path)
    low = next((p for p in (path, Path(gettempdir())) if shutil.disk_usage(_existing(p)).free <= _LOW), None)
    if low is None or isinstance(error, OSError) or not any(isinstance(e, RuntimeError) for e in _chain(error)):
        return None
    return f"cannot write below {low}: {_FULL[errno.ENOSPC]}"


def _full(error: BaseException) -> OSError | None:
    return next((e for e in _chain(error) if isinstance(e, OSError) and e.errno in _FULL), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _sentence(error: OSError, path: Path | None) -> str:
    where = error.filename or path
    return ("cannot write" if where is None else f"cannot write {where}") + f": {_REFUSED[error.errno or 0]}"


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
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
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
