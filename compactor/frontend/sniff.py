"""What a file is, by its content; its name does not count."""

import json
import pickletools
import zipfile
from enum import Enum
from pathlib import Path

from compactor.errors import InputError

ACCEPTED = (
    "give a torch.export archive, a state dict (.pt or .safetensors) with --factory, a Hugging Face folder, "
    "or a pickled module with --trust-pickle"
)


class Form(Enum):
    """The accepted forms of a teacher on disk."""

    ARCHIVE = "torch.export archive"
    CHECKPOINT = "torch.save file"
    SAFETENSORS = "safetensors file"
    FOLDER = "Hugging Face folder"


def form_of(path: Path) -> Form:
    """The form of a teacher. Raises `InputError` for a missing, empty, damaged or unknown file."""
    if not path.exists():
        raise InputError(f"{path} does not exist", ACCEPTED)
    if path.is_dir():
        if (path / "config.json").is_file():
            return Form.FOLDER
        raise InputError(f"{path} is a folder without config.json", "give a Hugging Face folder, or the file in it")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty", "copy or export it again")
    with path.open("rb") as handle:
        head = handle.read(16)
    if head.startswith(b"PK"):
        return _zip_form(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") > size:
        raise InputError(f"{path} is a truncated safetensors file ({size} bytes)", "copy it again")
    if _is_safetensors(path, size):
        return Form.SAFETENSORS
    if _is_pickle(head):
        return Form.CHECKPOINT
    raise InputError(f"{path} has an unknown format, it starts with {head!r}", ACCEPTED)


def _zip_form(path: Path) -> Form:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is a truncated or damaged archive ({error})", "copy or export it again") from error
    if "archive_format" in names or any(n.startswith("models/") for n in names):
        return Form.ARCHIVE
    if "constants.pkl" in names:
        raise InputError(f"{path} is a TorchScript file", "export the original module with torch.export instead")
    if "data.pkl" in names:
        return Form.CHECKPOINT
    if "serialized_exported_program.json" in names or "version" in names:
        raise InputError(
            f"{path} is an archive in the format of torch before 2.8", "export the model again with a newer torch"
        )
    shown = ", ".join(sorted(names)[:3])
    raise InputError(f"{path} is a zip file with {shown}, not a model", ACCEPTED)


def _is_safetensors(path: Path, size: int) -> bool:
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            return False
        try:
            return isinstance(json.loads(handle.read(length)), dict)
        except ValueError:
            return False


def _is_pickle(head: bytes) -> bool:
    """Whether this starts like a pickle; only opcodes are decoded, nothing is built."""
    if head[:1] != b"\x80":
        return False
    try:
        next(iter(pickletools.genops(head)))
    except ValueError:
        return False
    return True
