"""Archives with something planted in them, made by rewriting the records of a good one."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export.pt2_archive._package import PT2ArchiveReader, PT2ArchiveWriter

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.marker, "w")


def bomb(marker: Path, *, torch_format: bool = True) -> bytes:
    """A pickle that creates ``marker`` when loaded."""
    if not torch_format:
        return pickle.dumps(Bomb(marker))
    buffer = io.BytesIO()
    torch.save({"x": Bomb(marker)}, buffer)
    return buffer.getvalue()


def small() -> nn.Module:
    """A classifier of 4 features into 3 classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def records() -> dict[str, bytes]:
    """The records of a good archive of `small`, with a free batch."""
    buffer = io.BytesIO()
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(small(), (torch.zeros(2, 4),), dynamic_shapes=({0: batch},)), buffer)
    reader = PT2ArchiveReader(io.BytesIO(buffer.getvalue()))
    written_by_writer = (
        "byteorder",
        ".data/version",
        ".data/serialization_id",
        ".format_version",
        ".storage_alignment",
    )
    return {n: reader.read_bytes(n) for n in reader.get_file_names() if n not in written_by_writer}


def write(path: Path, content: dict[str, bytes]) -> Path:
    """An archive of these records."""
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for name, value in content.items():
            writer.write_bytes(name, value)
    path.write_bytes(buffer.getvalue())
    return path


def edited(content: dict[str, bytes], record: str, edit: Callable[[Any], None]) -> dict[str, bytes]:
    """The records with the JSON of one of them edited."""
    value = json.loads(content[record])
    edit(value)
    return content | {record: json.dumps(value).encode()}
