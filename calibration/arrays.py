"""Arrays by input name, with labels ``y``: npz, safetensors, or a mapping in memory."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compactor.calibration import facts, labels
from compactor.calibration.splits import ArraySplit
from compactor.errors import InputError
from compactor.ir.program import InputSpec, Program


def read(path: Path, program: Program) -> ArraySplit:
    """The split in an ``.npz`` or ``.safetensors`` file. Raises `InputError`; pickled arrays are never read."""
    return from_mapping(_safetensors(path) if path.suffix == ".safetensors" else _npz(path), program, str(path))


def from_mapping(arrays: Mapping[str, Any], program: Program, where: str) -> ArraySplit:
    """The split of arrays by input name (``x`` serves for a single input), ``y`` (N,) being the labels, if given."""
    tensors = {name: _tensor(value, f"{where}: {name!r}") for name, value in arrays.items()}
    inputs = []
    for spec in program.inputs:
        name = "x" if len(program.inputs) == 1 and spec.name not in tensors else spec.name
        if name not in tensors:
            wanted = ", ".join(s.name for s in program.inputs)
            raise InputError(
                f"{where} has no array {spec.name!r}, only {', '.join(tensors) or 'none'}",
                f"name the arrays by input ({wanted}), labels y",
            )
        inputs.append(_checked(tensors[name], spec, program, f"{where}: {name!r}"))
    y = labels.checked(tensors["y"], program, f"{where}: 'y'") if "y" in tensors else None
    sizes = {len(a) for a in inputs} | ({len(y)} if y is not None else set())
    if len(sizes) > 1:
        raise InputError(f"{where}: arrays of {sorted(sizes)} samples", "give every array the same first dimension")
    if sizes == {0}:
        raise InputError(f"{where} is empty", "give at least one sample")
    return ArraySplit(tuple(inputs), tuple(spec.dtype for spec in program.inputs), y)


def _npz(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with path.open("rb") as handle:
            content = np.load(handle, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array without a name")
            return {name: content[name] for name in content.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as npz: {reason}", "save it with np.savez, without objects") from error


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}", "save it with safetensors") from error


def _tensor(value: Any, where: str) -> Tensor:
    try:
        return value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{where} is not a numeric array: {error}", "give numbers") from error


def _checked(array: Tensor, spec: InputSpec, program: Program, where: str) -> Tensor:
    """The array as it is kept: pixels as ``uint8``, everything else in the input's dtype."""
    pixels = array.dtype == torch.uint8 and facts.is_image(spec)
    have = (array.shape[0], array.shape[3], *array.shape[1:3]) if pixels and array.dim() == 4 else tuple(array.shape)
    fits = len(have) == len(spec.shape) and all(
        i == 0 or (i in spec.dynamic and spec.dynamic[i].low <= n <= spec.dynamic[i].high) or n == want
        for i, (n, want) in enumerate(zip(have, spec.shape, strict=True))
    )
    if not fits or (array.is_floating_point() != spec.dtype.is_floating_point and not pixels):
        raise InputError(f"{where} has shape {tuple(array.shape)} and dtype {_name(array.dtype)}", _expected(spec))
    if pixels:
        return array
    if array.is_floating_point():
        _check_numbers(array, where)
    else:
        _check_vocabulary(array, spec, program, where)
    return array.to(spec.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _expected(spec: InputSpec) -> str:
    sizes = ["N"] + [spec.dynamic[i].name if i in spec.dynamic else str(n) for i, n in enumerate(spec.shape) if i]
    text = f"input {spec.name!r} takes {_name(spec.dtype)} ({', '.join(sizes)})"
    if facts.is_image(spec):
        _, channels, height, width = spec.shape
        text += f", or images as uint8 (N, {height}, {width}, {channels})"
    return text


def _check_numbers(array: Tensor, where: str) -> None:
    bad = (~torch.isfinite(array)).flatten(1).any(1) if array.dim() > 1 else ~torch.isfinite(array)
    rows = bad.nonzero().flatten()
    if len(rows):
        raise InputError(f"{where}, row {int(rows[0])}: NaN or infinity; {len(rows)} such rows", "repair or remove it")


def _check_vocabulary(array: Tensor, spec: InputSpec, program: Program, where: str) -> None:
    count = facts.vocabulary(program, spec.name)
    if count is None or not array.numel():
        return
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= count:
        raise InputError(
            f"{where} has values from {low} to {high}, the model's table has {count} rows", f"give 0 to {count - 1}"
        )
