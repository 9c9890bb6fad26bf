"""Tensors on disk, whole or not at all: what lets a killed run continue to the same bytes."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from compactor.errors import InputError


def save(path: Path, content: dict[str, Any]) -> None:
    """Write under a temporary name, fsync, rename. Tensors, numbers, strings and containers of them."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            torch.save(content, handle)
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
