"""Models on TensorRT, on a device that is elsewhere: its engine is built there, once, and runs samples one by one."""

import argparse
import ctypes
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from compactor.backends.shapes import Options, nominal_shapes
from compactor.backends.tensorrt import build_engine
from compactor.errors import CompactorError, InputError, MissingRuntimeError, UnsupportedError

ENGINE = "model.engine"
_ERRORS: dict[int, type[CompactorError]] = {3: InputError, 5: MissingRuntimeError}
_TYPES = {"FLOAT": "f4", "HALF": "f2", "INT32": "i4", "INT64": "i8", "INT8": "i1", "UINT8": "u1", "BOOL": "?"}


def load(
    files: Sequence[Path], precision: str, options: Options, *, batch: int | None = None
) -> Callable[[Sequence[Any]], list[Any]]:
    """A function from NumPy arrays, in the Program's order, to arrays; copies to and from the GPU are part of it.

    The engine is built for batch 1, with the options of ``build_engine.py``. Raises `MissingRuntimeError`,
    `UnsupportedError` or `InputError` with what the builder says.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            engine = _Engine(files[0].parent, list(nominal_shapes(options, 1)))
    except SystemExit as error:
        message, _, remedy = said.getvalue().strip().rpartition("error: ")[2].partition("\n  -> ")
        kind = _ERRORS.get(error.code if isinstance(error.code, int) else 4, UnsupportedError)
        raise kind(message, remedy) from error
    return engine.query if batch is not None else engine.each


class _Engine:
    """An engine with its buffers."""

    def __init__(self, folder: Path, inputs: list[str]) -> None:
        trt, settings = build_engine.load_tensorrt(), build_engine.read_settings(folder)
        engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(_plan(trt, settings, folder))
        if engine is None:
            build_engine.fail(4, "TensorRT cannot load the engine that it built", "run build_engine.py --verbose there")
        self._engine = engine  # its context needs it
        self._runner = build_engine.Runner(trt, engine, settings, 1)
        self._inputs = inputs
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._outputs = [name for name in names if name not in inputs]
        self._types = {name: np.dtype(_TYPES[engine.get_tensor_dtype(name).name]) for name in names}
        self._shapes = {name: tuple(self._runner.context.get_tensor_shape(name)) for name in self._outputs}

    def query(self, arrays: Sequence[Any]) -> list[Any]:
        """One sample."""
        for name, array in zip(self._inputs, arrays, strict=True):
            data = np.ascontiguousarray(array, dtype=self._types[name])
            ctypes.memmove(self._runner.hosts[name], data.ctypes.data, data.nbytes)
        self._runner.once()
        return [self._read(name) for name in self._outputs]

    def each(self, arrays: Sequence[Any]) -> list[Any]:
        """Samples one by one, joined again."""
        rows = [self.query([array[i : i + 1] for array in arrays]) for i in range(len(arrays[0]))]
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    def _read(self, name: str) -> Any:
        found = np.frombuffer(self._runner.hosts[name], dtype=self._types[name])
        return found.reshape(self._shapes[name]).astype(np.float32)


def _plan(trt: Any, settings: dict[str, Any], folder: Path) -> bytes:
    """The serialized engine, from the file that an earlier call left."""
    path = folder / ENGINE
    if not path.exists():
        options: argparse.Namespace = build_engine.arguments(["--output", str(folder)])
        build_engine.write(path, build_engine.build(trt, settings, folder, options)[0])
    return path.read_bytes()
