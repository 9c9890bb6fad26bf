"""An image folder: one subfolder per class."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from compactor.calibration import facts, labels
from compactor.calibration.splits import ArraySplit, FileSplit
from compactor.errors import InputError
from compactor.ir.program import Program

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
IN_MEMORY = 2 << 30
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def class_names(folder: Path) -> tuple[str, ...]:
    """Names of the subfolders, sorted."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))


def order(names: Sequence[str], program: Program) -> tuple[str, ...]:
    """Class names by logit: the teacher's own labels where all folders are among them, else the folders, sorted."""
    known = facts.labels(program)
    return known if known is not None and set(names) <= set(known) else tuple(names)


def read(folder: Path, program: Program, classes: Sequence[str]) -> ArraySplit | FileSplit:
    """The split of an image folder; class i is ``classes[i]``.

    Images come as uint8 (H, W, C) of the model's size: where theirs differs, cropped centrally to the model's aspect
    ratio and resized. Raises `InputError` naming an image that cannot be read or a class that the teacher lacks.
    """
    if len(program.inputs) != 1 or not facts.is_image(program.inputs[0]):
        wanted = ", ".join(f"{s.name} {s.shape}" for s in program.inputs)
        raise InputError(f"{folder} is an image folder, but the model takes {wanted}", "give arrays or a table")
    paths, targets = _listing(folder, classes)
    target_tensor = labels.checked(torch.tensor(targets), program, f"{folder} ({', '.join(classes[:12])})")
    _, channels, height, width = program.inputs[0].shape
    decode = partial(_decode, channels=channels, height=height, width=width)
    if len(paths) * channels * height * width > IN_MEMORY:
        return FileSplit(tuple(paths), decode, f"{channels} {height} {width}", target_tensor)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        pixels = torch.stack(list(pool.map(decode, paths)))
    return ArraySplit((pixels,), (program.inputs[0].dtype,), target_tensor)


def _listing(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    paths: list[Path] = []
    targets: list[int] = []
    for name in class_names(folder):
        if name not in classes:
            raise InputError(
                f"{folder} has the class {name!r}, which train lacks", f"classes are {', '.join(classes[:12])}"
            )
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        paths += found
        targets += [list(classes).index(name)] * len(found)
    if not paths:
        raise InputError(f"{folder} holds no images", "put them into one subfolder per class")
    return paths, targets


def _decode(path: Path, channels: int, height: int, width: int) -> Tensor:
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = opened.convert(_MODES[channels])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable image: {error}", "remove or replace it") from error
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image).reshape(height, width, channels))
