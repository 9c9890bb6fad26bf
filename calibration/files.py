"""Data on disk: a folder with ``train``, and ``dev`` and ``test`` where they exist, or one file."""

from collections.abc import Callable
from pathlib import Path

from compactor.calibration import arrays, facts, images, tables
from compactor.calibration.splits import ArraySplit, FileSplit, TextSplit, set_aside
from compactor.data import DataSource
from compactor.errors import InputError, UsageError
from compactor.ir.program import Program

_Read = ArraySplit | FileSplit | TextSplit
_READERS: dict[str, Callable[[Path, Program], _Read]] = {
    ".npz": arrays.read,
    ".safetensors": arrays.read,
    ".tsv": tables.read,
    ".csv": tables.read,
}
_FORMS = "an image folder (one subfolder per class), .npz, .safetensors, .tsv or .csv"


def open(spec: str | None, program: Program, seed: int) -> DataSource:
    """The data at a path, in the Program's input format; without ``dev``, a tenth of ``train`` is set aside by seed.

    Raises `InputError` for data that is missing, damaged or does not fit the Program.
    """
    if spec is None:
        raise UsageError("no data folder given", "give a path")
    root = Path(spec)
    if not root.exists():
        raise InputError(f"{root} does not exist", f"give a folder with train, or one of {_FORMS}")
    found = _splits(root)
    train_path = found["train"]
    folders = images.class_names(train_path) if train_path.is_dir() else None
    classes = images.order(folders, program) if folders is not None else facts.labels(program)
    read = {name: _read(path, program, classes) for name, path in found.items()}
    train = read["train"]
    if "dev" in read:
        return DataSource(train, read["dev"], read.get("test"), classes)
    rest, dev = set_aside(train, train.labels, seed)
    return DataSource(rest, dev, read.get("test"), classes)


def _splits(root: Path) -> dict[str, Path]:
    """Path of every split that exists; ``train`` always does."""
    if root.is_file():
        return {"train": root}
    found = {}
    for name in ("train", "dev", "test"):
        options = [root / name] if (root / name).is_dir() else []
        options += [p for suffix in _READERS if (p := root / f"{name}{suffix}").is_file()]
        if len(options) > 1:
            raise InputError(f"{root} has {' and '.join(p.name for p in options)}", f"keep one form of {name}")
        if options:
            found[name] = options[0]
    if "train" not in found and not found and _is_image_folder(root):
        return {"train": root}
    if "train" not in found:
        names = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root} has no train, only {names}", f"put train there: {_FORMS}")
    return found


def _is_image_folder(root: Path) -> bool:
    return any(
        p.suffix.lower() in images.SUFFIXES for folder in root.iterdir() if folder.is_dir() for p in folder.iterdir()
    )


def _read(path: Path, program: Program, classes: tuple[str, ...] | None) -> _Read:
    if path.is_dir():
        return images.read(path, program, classes if classes is not None else images.class_names(path))
    if path.suffix not in _READERS:
        raise InputError(f"{path} is of an unknown kind", f"give {_FORMS}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty", "copy it again")
    return _READERS[path.suffix](path, program)
