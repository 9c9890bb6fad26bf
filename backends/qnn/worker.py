"""Compiles models for Qualcomm's Hexagon and runs them, on a device's NPU or on the emulator of x86-64 Linux.

Needs the Python that has the runtime (NumPy, onnxruntime, onnxruntime-qnn), nothing of compactor:

    python worker.py FOLDER

FOLDER, where it runs, holds ``job.json`` (model, options of the provider, whether to keep what is compiled) and perhaps
``inputs.npz``; ``result.json``, ``outputs.npz`` and ``compiled.onnx`` are written there.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROVIDER = "QNNExecutionProvider"
LEAST = "2.0"
COMPILED = "compiled.onnx"


def provider(options: Mapping[str, str]) -> tuple[Any, list[Any], dict[str, str]]:
    """ONNX Runtime, the devices that Qualcomm's provider offers, and the provider's options. Raises `ImportError`."""
    import onnxruntime
    import onnxruntime_qnn

    if not any(device.ep_name == PROVIDER for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    return onnxruntime, devices, {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **options}


def provider_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Of the provider, from those of a lowered model; a device knows its chip, and nothing is left to its CPU."""
    chip = {"soc_model": str(options["soc_model"])} if "soc_model" in options else {}
    return {**chip, "offload_graph_io_quantization": "0", "htp_graph_finalization_optimization_mode": "3"}


def session(path: Path, options: Mapping[str, str], compiled: Path | None = None) -> Any:
    """A session that runs on Hexagon as a whole or not at all; what was compiled for it is kept in ``compiled``."""
    onnxruntime, devices, given = provider(options)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if compiled is not None:
        settings.add_session_config_entry("ep.context_enable", "1")
        settings.add_session_config_entry("ep.context_embed_mode", "1")
        settings.add_session_config_entry("ep.context_file_path", str(compiled))
    settings.add_provider_for_devices(devices, given)
    return onnxruntime.InferenceSession(str(path), settings)


def runner(opened: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """A function that runs samples one by one, as the model has a batch of one, and joins their outputs."""
    names, outputs = [v.name for v in opened.get_inputs()], [v.name for v in opened.get_outputs()]

    def run(arrays: Sequence[Any]) -> list[Any]:
        rows = [
            opened.run(outputs, {n: a[i : i + 1] for n, a in zip(names, arrays, strict=True)})
            for i in range(len(arrays[0]))
        ]
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    return run


def work(folder: Path) -> dict[str, Any]:
    """Do the job."""
    job = json.loads((folder / "job.json").read_text())
    opened = session(Path(job["model"]), job["options"], Path(COMPILED) if job["compile"] else None)
    if (folder / "inputs.npz").exists():
        with np.load(folder / "inputs.npz", allow_pickle=False) as stored:
            arrays = [stored[str(i)] for i in range(len(stored.files))]
        outputs = runner(opened)(arrays)
        np.savez(folder / "outputs.npz", **{str(i): value for i, value in enumerate(outputs)})
    import onnxruntime
    import onnxruntime_qnn

    return {"onnxruntime": onnxruntime.__version__, "onnxruntime_qnn": getattr(onnxruntime_qnn, "__version__", "")}


def main() -> int:
    """Do the job and write what came of it. The exit code is 0 when ``result.json`` tells, an error included."""
    folder = Path(sys.argv[1])
    try:
        result = work(folder)
    except ImportError as error:
        result = {"missing": str(error)}
    except Exception as error:
        result = {"refused": str(error)}
    (folder / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
