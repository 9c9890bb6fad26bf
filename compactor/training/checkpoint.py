"""Tensors on disk, whole or not at all: what lets a killed run continue to the same bytes."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from compactor.errors import InputError


def save(path: Path, content: dict[str, Any]) -> None:
    """Write under a temporary name, fsync, rename. Tensors, numbers, strings and containers of them."""
    with whole(path) as handle:
        torch.save(content, handle)


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that gets its name when it is complete and on the disk."""
    # By rank, not by process: what a killed run left behind is overwritten.
    temporary = path.with_name(f".{path.name}.{os.environ.get('RANK', '0')}.tmp")
    try:
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, key: str) -> dict[str, Any] | None:
    """The content saved under ``key``; None when there is no file or it belongs to another run.

    Raises `InputError` for a file that cannot be read.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        message = f"the checkpoint {path} cannot be read: {error}"
        raise InputError(message, "delete it to start this stage anew") from error
    return content if content.get("key") == key else None
