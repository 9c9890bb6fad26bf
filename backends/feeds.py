"""What every session needs: the shapes it was lowered for, and tensors to and from NumPy."""

import platform
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from compactor.errors import InputError
from compactor.ir.program import Program


def describe_shapes(program: Program) -> str:
    """Nominal shapes as an option of `Lowered`: ``image=?x3x32x32 mask=?x64``, the batch where it is free as ``?``."""
    words = []
    for spec in program.inputs:
        sizes = ["?" if i == 0 and 0 in spec.dynamic else str(n) for i, n in enumerate(spec.shape)]
        words.append(f"{spec.name}={'x'.join(sizes)}")
    return " ".join(words)


def numpy_inputs(names: list[str], inputs: Any) -> dict[str, Any]:
    """Arrays by input name, sharing memory. Raises `InputError` when the number of inputs is wrong."""
    if len(inputs) != len(names):
        raise InputError(f"{len(inputs)} inputs given, the model takes {len(names)}", f"give {', '.join(names)}")
    return {name: value.detach().contiguous().numpy() for name, value in zip(names, inputs, strict=True)}


def tensors(arrays: Any) -> tuple[Tensor, ...]:
    """Tensors that own their memory."""
    return tuple(torch.from_numpy(array.copy()) for array in arrays)


def runtime_name(package: str, device: str, found: str | None = None) -> str:
    """``openvino 2026.4.1 (CPU, x86_64)``; the version is the installed one of that name unless given."""
    return f"{package} {found or version(package)} ({device}, {platform.machine()})"
