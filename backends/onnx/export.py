"""Program to ONNX, shared by every runtime that reads ONNX: the same Program gives the same bytes."""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from compactor.backends.onnx import origins
from compactor.backends.onnx.cleanup import clean
from compactor.backends.onnx.prepare import prepare
from compactor.errors import MissingRuntimeError, UnsupportedError
from compactor.ir.exported import to_exported
from compactor.ir.program import Program

OPSET = 20
IR_VERSION = 10


def write_onnx(
    program: Program, path: Path, *, rewrite: Callable[[Any], None] | None = None, batch: int | None = None
) -> dict[str, str]:
    """Write the Program as one ONNX file with dynamic dimensions as its inputs have them, with ``batch`` without any.

    Returns the names of the file's nodes with the Program's nodes that they were made of, where that is known.

    ``rewrite`` changes the ``onnx_ir.Graph`` in ways that only one runtime wants.

    Raises `MissingRuntimeError` without onnxscript, `UnsupportedError` for an operator that ONNX lacks.
    """
    if batch is not None:
        program = _fixed(program, batch)
    prepared = prepare(program)
    exported = to_exported(prepared, batch=batch)
    origins.mark(prepared, exported)
    model = _export(exported)
    made_of = clean(model, program, rewrite)
    model.ir_version, model.producer_name, model.producer_version = IR_VERSION, "compactor", None
    import onnx_ir

    with path.open("wb") as handle:
        handle.write(onnx_ir.to_proto(model).SerializeToString(deterministic=True))
        handle.flush()
        os.fsync(handle.fileno())
    return made_of


def _fixed(program: Program, batch: int) -> Program:
    """The Program for this batch size and nominal sizes elsewhere."""
    shapes = program.input_shapes(batch)
    specs = (replace(spec, shape=shape, dynamic={}) for spec, (shape, _) in zip(program.inputs, shapes, strict=True))
    return replace(program, inputs=tuple(specs))


def _export(exported: ExportedProgram) -> Any:
    import torch

    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingRuntimeError(
            f"writing ONNX needs onnxscript: {error}", "install it with pip install 'compactor[onnx]'"
        ) from error
    try:
        with _quiet(), _operators_once():
            program = torch.onnx.export(exported, dynamo=True, optimize=True, verbose=False, opset_version=OPSET)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UnsupportedError(
            f"this model does not translate to ONNX: {reason}", "replace the named operator in the model"
        ) from error
    if program is None:
        raise UnsupportedError("the ONNX exporter returned nothing", "report this model")
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on its own dependencies concern no user of ours."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


_TABLES: dict[int, Any] = {}


@contextlib.contextmanager
def _operators_once() -> Iterator[None]:
    """The exporter reads its table of operators anew for every model, which takes longer than small models do."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        read = ONNXRegistry.__dict__["from_torchlib"]
    except (ImportError, KeyError):  # It is not public: another torch may have it elsewhere, and takes its time.
        yield
        return

    def remembered(cls: type, opset_version: int) -> Any:
        if opset_version not in _TABLES:
            _TABLES[opset_version] = read.__get__(None, cls)(opset_version=opset_version)
        return _TABLES[opset_version]

    ONNXRegistry.from_torchlib = classmethod(remembered)  # type: ignore[assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = read  # type: ignore[method-assign]
