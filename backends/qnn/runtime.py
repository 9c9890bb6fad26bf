"""Models on a Snapdragon's NPU, without torch: what devices that are elsewhere open them with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compactor.backends.qnn import worker
from compactor.backends.shapes import Options
from compactor.errors import MissingRuntimeError


def load(
    files: Sequence[Path], precision: str, options: Options, *, batch: int | None = None
) -> Callable[[Sequence[Any]], list[Any]]:
    """A function from NumPy arrays, in the Program's order, to arrays. Raises `MissingRuntimeError`."""
    try:
        return worker.runner(worker.session(files[0], worker.provider_options(options)))
    except ImportError as error:
        raise MissingRuntimeError(
            f"Qualcomm's runtime cannot be loaded: {error}", "install it with pip install onnxruntime onnxruntime-qnn"
        ) from error
