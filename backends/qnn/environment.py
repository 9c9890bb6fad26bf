"""The Python that has Qualcomm's runtime, and jobs for it: processes that get a folder and leave results there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from compactor.backends.qnn import worker
from compactor.errors import MissingRuntimeError, UnsupportedError

VARIABLE = "COMPACTOR_QNN_PYTHON"
MINUTES = 20.0
"""How long compiling and running a model may take; the emulator takes seconds for a sample of a large one."""
REMEDY = f"make an environment with pip install onnxruntime onnxruntime-qnn, and set {VARIABLE} to its python"


def interpreter() -> str | None:
    """The Python that the variable names, else this one where it has the runtime, else None."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    return sys.executable if find_spec("onnxruntime_qnn") is not None else None


def python() -> str:
    """The same; raises `MissingRuntimeError` where there is none."""
    found = interpreter()
    if found is None:
        raise MissingRuntimeError("no Python here has Qualcomm's runtime (onnxruntime-qnn)", REMEDY)
    return found


def run(
    model: Path, options: Mapping[str, str], inputs: Sequence[Any] = (), compiled: Path | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """Outputs for the samples of ``inputs``, and the versions of the runtime; the compiled model goes to ``compiled``.

    Raises `MissingRuntimeError` where there is no such Python or it lacks the runtime, `UnsupportedError` with what the
    compiler says.
    """
    with TemporaryDirectory(prefix="compactor-") as name:
        folder = Path(name)
        # Under the same name wherever it lies: the compiler writes it down.
        (folder / "model.onnx").symlink_to(model.absolute())
        job = {"model": "model.onnx", "options": dict(options), "compile": compiled is not None}
        (folder / "job.json").write_text(json.dumps(job))
        if inputs:
            np.savez(folder / "inputs.npz", **{str(i): array for i, array in enumerate(inputs)})
        result = _finished(python(), folder)
        if compiled is not None:
            shutil.move(folder / worker.COMPILED, compiled)
        if not inputs:
            return [], result
        with np.load(folder / "outputs.npz", allow_pickle=False) as stored:
            return [stored[str(i)] for i in range(len(stored.files))], result


def _finished(interpreter: str, folder: Path) -> dict[str, Any]:
    command = [interpreter, "-I", str(Path(worker.__file__)), str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60 * MINUTES, check=False)
    except OSError as error:
        raise MissingRuntimeError(f"{VARIABLE} names {interpreter}, which cannot be started: {error}", REMEDY) from None
    except subprocess.TimeoutExpired:
        raise UnsupportedError(
            f"compiling and running the model on the emulator took more than {MINUTES:g} minutes",
            "build a smaller student, or check it on the device",
        ) from None
    path = folder / "result.json"
    if not path.exists():  # the compiler took the process down
        last = " ".join(done.stderr.strip().splitlines()[-3:])
        path.write_text(json.dumps({"refused": f"it ended with code {done.returncode}: {last}"}))
    result: dict[str, Any] = json.loads(path.read_text())
    if "missing" in result:
        raise MissingRuntimeError(f"{interpreter} lacks Qualcomm's runtime: {result['missing']}", REMEDY)
    if "refused" in result:
        raise UnsupportedError(
            f"Qualcomm's compiler refuses the model: {result['refused']}",
            "keep the named nodes out of the model, or build for another target",
        )
    return result
