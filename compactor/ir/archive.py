"""A Program on disk: a ``.pt2`` archive with what `torch.export` does not know in an extra file."""

import io
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.export import ExportedProgram

from compactor.errors import CompactorError, InputError
from compactor.ir import safety
from compactor.ir.exported import from_exported, to_exported
from compactor.ir.program import InputSpec, Program

EXTRA = "compactor.json"
_UNSAVED = ("tokenizer",)  # a path of this machine


def save(program: Program, path: Path) -> None:
    """Write ``path`` whole or not at all; equal Programs give equal bytes, in any process."""
    extra = {
        "inputs": [s.to_dict() for s in program.inputs],
        "outputs": list(program.outputs),
        "precision": program.precision,
        "between": program.between,
        "history": [dict(h) for h in program.history],
        "meta": {k: v for k, v in program.meta.items() if k not in _UNSAVED},
        "trainable": sorted(program.trainable),
    }
    exported = to_exported(program)
    _strip(exported)
    buffer = io.BytesIO()  # torch's writer puts a file's name into its bytes, and aborts the process on a full disk
    torch.export.save(exported, buffer, extra_files={EXTRA: json.dumps(extra, sort_keys=True)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(buffer.getbuffer())
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Program:
    """Read an archive, ours or any that `torch.export.save` wrote. Never unpickles objects or runs code from it.

    Raises `InputError` for an archive that is damaged, too old, or needs either.
    """
    with path.open("rb") as handle:
        exported, extra = read_exported(handle, str(path))
    return program_of(exported, json.loads(extra) if extra else None)


def read_exported(handle: BinaryIO, name: str) -> tuple[ExportedProgram, str | None]:
    """The model of an archive, and our extra file where it has one. ``name`` is used in messages."""
    from torch.export.pt2_archive._package import PT2ArchiveReader, load_pt2

    buffer = io.BytesIO(handle.read())  # in memory: what is checked is what is read
    try:
        reader = PT2ArchiveReader(buffer)
    except Exception as error:
        raise InputError(
            f"{name} is a damaged archive, or older than torch 2.8's format", "copy it again, or export the model again"
        ) from error
    try:
        _register_operators(reader)
        safety.check(reader)
        buffer.seek(0)
        with _tensors_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contents = load_pt2(buffer)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", error.remedy) from error
    except CompactorError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"{name} is an archive that torch {torch.__version__} cannot read: {reason}", safety.REMEDY
        ) from error
    return contents.exported_programs["model"], contents.extra_files.get(EXTRA)


def program_of(exported: ExportedProgram, extra: dict[str, Any] | None) -> Program:
    """The Program of a loaded archive and the content of its extra file, if it is one of ours."""
    program = from_exported(exported)
    if extra is None:
        return program
    return program.evolve(
        inputs=tuple(InputSpec.from_dict(s) for s in extra["inputs"]),
        outputs=tuple(extra["outputs"]),
        precision=extra["precision"],
        between=extra.get("between", "float32"),
        history=tuple(extra["history"]),
        meta=extra["meta"],
        trainable=frozenset(extra["trainable"]),
    )


def _strip(exported: ExportedProgram) -> None:
    """Drop where nodes came from: file names and line numbers would make the bytes depend on the machine."""
    for node in exported.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom"):
            node.meta.pop(key, None)


def _register_operators(reader: safety.Reader) -> None:
    """Quantized models use operators, and Hugging Face ones output types, that exist only once imported."""
    model = reader.read_bytes(safety.MODEL)
    if b"torch.ops.quantized_decomposed." in model:
        import torch.ao.quantization.fx._decomposed  # noqa: F401
    if b"transformers.modeling_outputs." in model:
        try:
            import transformers.modeling_outputs  # noqa: F401
        except ImportError as error:
            raise InputError(
                "the archive returns a Hugging Face output type", "pip install 'compactor[hf]', or return tensors"
            ) from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Second line of defence: `torch.load` refuses objects even where its caller asks for them."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        os.environ.pop(key)
        if before is not None:
            os.environ[key] = before
