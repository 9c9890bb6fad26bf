"""Runs on the device, in the folder that was sent: every model on the samples, then all timed in turns.

Needs Python 3.10, NumPy and the models' runtime. Beside it lie `compactor.errors`, `compactor.latency`,
`compactor.targets.measure` and the modules of a `compactor.backend.Loader`, and nothing else of compactor.

Reads ``job.json`` (the loader's module, and the models with their files), ``samples.npz`` and ``inputs.npz``; writes
``outputs.npz`` and ``result.json``.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from compactor.errors import CompactorError, UnsupportedError
from compactor.targets import measure

_PATIENCE = 10.0
Run = Callable[[Sequence[Any]], list[Any]]


def main() -> None:
    """Do the job and write what came of it."""
    folder, left = Path(sys.argv[1]), threading.Event()
    watcher = threading.Thread(target=_watch, args=(folder, left), daemon=True)
    watcher.start()
    try:
        (folder / "result.json").write_text(json.dumps(_answer(folder)))
    finally:
        if left.is_set():  # what failed may have missed a file that is gone already
            watcher.join()


def _answer(folder: Path) -> dict[str, Any]:
    try:
        return work(folder)
    except CompactorError as error:
        return {"error": {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}}


def _watch(folder: Path, left: threading.Event) -> None:
    """End when the supervisor has: it holds the other end of stdin."""
    os.read(0, 1)
    left.set()
    end = time.monotonic() + _PATIENCE
    while folder.exists() and time.monotonic() < end:  # a runtime's own threads may be writing there
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def work(folder: Path) -> dict[str, Any]:
    """Latencies by model; the outputs lie in ``outputs.npz`` as ``model/index``."""
    job = json.loads((folder / "job.json").read_text())
    samples, inputs = (_arrays(folder / name) for name in ("samples.npz", "inputs.npz"))
    outputs: dict[str, Any] = {}
    if samples:
        for name in job["models"]:
            values = _load(job, folder, name, None)(samples)
            outputs |= {f"{name}/{i}": value for i, value in enumerate(values)}
        np.savez(folder / "outputs.npz", **outputs)
    runs = {name: partial(_load(job, folder, name, 1), inputs) for name in job["models"]}
    found = measure.timed(runs)
    return {"latencies": {name: measure.summarize(times).to_dict() for name, times in found.items()}}


def _load(job: dict[str, Any], folder: Path, name: str, batch: int | None) -> Run:
    model = job["models"][name]
    files = [folder / "models" / name / file for file in model["files"]]
    try:
        run: Run = import_module(job["module"]).load(files, model["precision"], model["options"], batch=batch)
    except CompactorError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"{job['runtime']} there cannot load the {name}: {error}",
            "install there the version of the runtime that the model was lowered with",
        ) from error
    return run


def _arrays(path: Path) -> list[Any]:
    with np.load(path, allow_pickle=False) as stored:
        return [stored[str(i)] for i in range(len(stored.files))]


if __name__ == "__main__":
    main()
