"""Builds the TensorRT engine of a lowered model on the device, inspects and times it.

Needs Python 3.10 or newer and TensorRT 10 or 11 with its Python module, nothing else:

    python3 build_engine.py            # beside model.onnx and build.json

Writes model.engine, timing.cache, engine.layers.json and engine.json (latencies in milliseconds) into --output.
Exit codes: 0 done, 2 usage, 3 damaged input, 4 TensorRT refuses the model, 5 TensorRT or CUDA is missing.
"""

import argparse
import ctypes
import ctypes.util
import hashlib
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

CUDA_LIBRARIES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
CUDA_FOLDER = "/usr/local/cuda/lib64"
TO_DEVICE, TO_HOST = 1, 2
COMPUTE_MAJOR, COMPUTE_MINOR = 75, 76
WARMUP_SECONDS, MEASURE_SECONDS, LEAST_QUERIES = 0.2, 3.0, 64
TYPE = re.compile(r"\b(int8|fp8|half|fp16|bf16|float|fp32|int32|int64|bool)\b", re.IGNORECASE)
NAMES = {"half": "fp16", "float": "fp32"}


def fail(code: int, message: str, remedy: str) -> NoReturn:
    """Say what happened and what to do, and leave with this exit code."""
    print(f"error: {message}\n  -> {remedy}", file=sys.stderr)
    raise SystemExit(code)


def load_tensorrt() -> Any:
    """The tensorrt module, 10.x or 11.x."""
    try:
        import tensorrt
    except ImportError as error:
        fail(5, f"TensorRT's Python module cannot be loaded: {error}", "on Jetson: apt install python3-libnvinfer")
    major = int(tensorrt.__version__.split(".")[0])
    if major not in (10, 11):
        fail(5, f"TensorRT {tensorrt.__version__} is installed, this builder knows 10 and 11", "install one of them")
    return tensorrt


def read_settings(folder: Path) -> dict[str, Any]:
    """build.json, after checking that model.onnx is the file it was written for."""
    try:
        settings: dict[str, Any] = json.loads((folder / "build.json").read_text())
        digest = hashlib.sha256((folder / settings["model"]).read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError) as error:
        fail(3, f"cannot read the model in {folder}: {error}", "copy the whole folder to the device again")
    if digest != settings["sha256"]:
        fail(3, f"{settings['model']} has sha256 {digest}, not {settings['sha256']}", "copy the folder again")
    return settings


def parse(trt: Any, builder: Any, logger: Any, path: Path) -> Any:
    """The network of an ONNX file, with the types that the file states."""
    flags = 0
    # TensorRT 11 knows strongly typed networks only, and keeps the flag for compatibility.
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        fail(4, f"TensorRT cannot parse {path.name}: {reasons}", "see the log above")
    return network


def configure(trt: Any, builder: Any, network: Any, settings: dict[str, Any], options: argparse.Namespace) -> Any:
    """Workspace, verbosity, DLA, optimisation profile."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.level
    if options.dla is not None:
        config.default_device_type, config.DLA_core = trt.DeviceType.DLA, options.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    add_profile(builder, config, network, settings, options)
    return config


def add_profile(builder: Any, config: Any, network: Any, settings: dict[str, Any], options: argparse.Namespace) -> None:
    """One optimisation profile: nominal shapes, batch 1 to --max-batch; a DLA takes one batch size only."""
    profile, dynamic = builder.create_optimization_profile(), False
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if all(size >= 0 for size in tensor.shape):
            continue
        dynamic = True
        least = 1 if options.dla is None else options.batch
        sizes = (shape_of(settings, tensor.name, n) for n in (least, options.batch, options.max_batch))
        profile.set_shape(tensor.name, *sizes)
    if dynamic:
        config.add_optimization_profile(profile)


def shape_of(settings: dict[str, Any], name: str, batch: int) -> tuple[int, ...]:
    """Nominal shape of an input at this batch size (-1 in build.json is the batch)."""
    return tuple(batch if size == -1 else int(size) for size in settings["inputs"][name])


def build(trt: Any, settings: dict[str, Any], folder: Path, options: argparse.Namespace) -> tuple[bytes, bytes, float]:
    """The serialized engine, the timing cache, and the seconds it took."""
    logger = trt.Logger(trt.Logger.INFO if options.verbose else trt.Logger.WARNING)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # TensorRT returned none, having logged why
        fail(5, f"TensorRT cannot use a GPU here: {error}", "run on the device; see the log above, and nvidia-smi")
    if options.dla is not None and options.dla >= builder.num_DLA_cores:
        fail(4, f"--dla {options.dla}: this device has {builder.num_DLA_cores} DLA cores", "leave --dla out")
    network = parse(trt, builder, logger, folder / settings["model"])
    config = configure(trt, builder, network, settings, options)
    known = options.output / "timing.cache"
    cache = config.create_timing_cache(known.read_bytes() if known.exists() else b"")
    # A cache of another device or version is refused, not trusted.
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    start = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        fail(4, "TensorRT could not build an engine", "run again with --verbose, or with a larger --workspace-mb")
    return bytes(engine), bytes(config.get_timing_cache().serialize()), time.monotonic() - start


class Cuda:
    """The few CUDA runtime calls that timing needs."""

    def __init__(self) -> None:
        self.cuda = self._load()
        self.cuda.cudaMalloc.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t]
        self.cuda.cudaMemcpyAsync.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p,
        ]  # fmt: skip
        for name in ("cudaStreamSynchronize", "cudaEventSynchronize"):
            getattr(self.cuda, name).argtypes = [ctypes.c_void_p]
        self.cuda.cudaEventRecord.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.cuda.cudaEventElapsedTime.argtypes = [ctypes.POINTER(ctypes.c_float), ctypes.c_void_p, ctypes.c_void_p]

    @staticmethod
    def _load() -> Any:
        found = ctypes.util.find_library("cudart")
        names = [*CUDA_LIBRARIES, *(f"{CUDA_FOLDER}/{name}" for name in CUDA_LIBRARIES), *filter(None, [found])]
        for name in names:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        fail(5, "the CUDA runtime (libcudart) was not found", "set LD_LIBRARY_PATH to its folder, or use --no-measure")

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the CUDA runtime and stop on an error."""
        code = getattr(self.cuda, name)(*arguments)
        if code != 0:
            fail(5, f"{name} returned CUDA error {code}", "check the driver with nvidia-smi, or tegrastats")

    def handle(self, name: str) -> ctypes.c_void_p:
        """A new stream or event."""
        value = ctypes.c_void_p()
        self.call(name, ctypes.byref(value))
        return value

    def allocate(self, size: int) -> ctypes.c_void_p:
        """Device memory of this many bytes."""
        value = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(value), size)
        return value

    def attribute(self, number: int) -> int:
        """An attribute of device 0."""
        value = ctypes.c_int()
        self.call("cudaDeviceGetAttribute", ctypes.byref(value), number, 0)
        return value.value


class Runner:
    """An engine with its buffers, filled with zeros."""

    def __init__(self, trt: Any, engine: Any, settings: dict[str, Any], batch: int) -> None:
        self.cuda, self.context = Cuda(), engine.create_execution_context()
        self.stream = self.cuda.handle("cudaStreamCreate")
        self.begin, self.end = self.cuda.handle("cudaEventCreate"), self.cuda.handle("cudaEventCreate")
        self.copies: dict[int, list[tuple[Any, Any, int]]] = {TO_DEVICE: [], TO_HOST: []}
        self.hosts: dict[str, Any] = {}
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        for name in inputs:
            self.context.set_input_shape(name, shape_of(settings, name, batch))
        for name in names:
            self._bind(name, engine, TO_DEVICE if name in inputs else TO_HOST)

    def _bind(self, name: str, engine: Any, direction: int) -> None:
        size = int(engine.get_tensor_dtype(name).itemsize)
        for extent in self.context.get_tensor_shape(name):
            size *= extent
        device, host = self.cuda.allocate(size), ctypes.create_string_buffer(size)
        self.hosts[name] = host
        self.context.set_tensor_address(name, device.value)
        pair = (device, host) if direction == TO_DEVICE else (host, device)
        self.copies[direction].append((*pair, size))

    def once(self) -> tuple[float, float]:
        """One inference: milliseconds on the GPU, and end to end with copies."""
        start = time.perf_counter()
        self._copy(TO_DEVICE)
        self.cuda.call("cudaEventRecord", self.begin, self.stream)
        if not self.context.execute_async_v3(self.stream.value):
            fail(4, "the engine could not be run", "run again with --verbose")
        self.cuda.call("cudaEventRecord", self.end, self.stream)
        self._copy(TO_HOST)
        self.cuda.call("cudaStreamSynchronize", self.stream)
        whole = (time.perf_counter() - start) * 1e3
        compute = ctypes.c_float()
        self.cuda.call("cudaEventElapsedTime", ctypes.byref(compute), self.begin, self.end)
        return compute.value, whole

    def _copy(self, direction: int) -> None:
        for target, source, size in self.copies[direction]:
            self.cuda.call("cudaMemcpyAsync", target, source, size, direction, self.stream)


def measure(runner: Runner) -> dict[str, Any]:
    """Percentiles in milliseconds of GPU compute and of end-to-end latency."""
    stop = time.perf_counter() + WARMUP_SECONDS
    while time.perf_counter() < stop:
        runner.once()
    samples: list[tuple[float, float]] = []
    stop = time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < stop or len(samples) < LEAST_QUERIES:
        samples.append(runner.once())
    compute, whole = (sorted(column) for column in zip(*samples, strict=True))
    return {
        "basis": "measured",
        "n": len(samples),
        "seconds": MEASURE_SECONDS,
        "gpu_compute_ms": percentiles(compute),
        "end_to_end_ms": percentiles(whole),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90 and p99 of sorted values."""
    return {f"p{p}": round(values[min(len(values) - 1, len(values) * p // 100)], 4) for p in (50, 90, 99)}


def device() -> dict[str, str]:
    """What is known of this machine; power mode and clocks are Jetson's own files."""
    facts = {"machine": platform.machine(), "system": platform.platform()}
    for name, path in (("board", "/proc/device-tree/model"), ("power_mode", "/var/lib/nvpmodel/status")):
        try:
            facts[name] = Path(path).read_text(errors="replace").strip("\0\n ")
        except OSError:
            continue
    return facts


def inspected(layers: str) -> dict[str, Any]:
    """How many layers give each type, and which run on a DLA, from what the engine inspector says in detail.

    What a quantized model gives in fp16 or fp32 did not run in int8; with --dla, what is not listed fell back.
    """
    types: dict[str, int] = {}
    on_dla = []
    for layer in json.loads(layers).get("Layers", []):
        if not isinstance(layer, dict):  # a name alone: no details were kept
            continue
        first: dict[str, Any] = next(iter(layer.get("Outputs") or []), {})
        kind = TYPE.search(str(first.get("Format/Datatype", first.get("Format", ""))))
        name = kind[1].lower() if kind else "other"
        name = NAMES.get(name, name)
        types[name] = types.get(name, 0) + 1
        if layer.get("LayerType") == "DLA":
            on_dla.append(str(layer.get("Name")))
    return {"layer_types": types, "on_dla": on_dla}


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build, inspect and time the TensorRT engine of model.onnx.")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent, help="folder to write to")
    parser.add_argument("--batch", type=int, default=1, help="batch size to optimise for and to time")
    parser.add_argument("--max-batch", type=int, default=None, help="largest batch size the engine takes")
    parser.add_argument("--workspace-mb", type=int, default=0, help="limit of scratch memory; 0 leaves it to TensorRT")
    parser.add_argument("--level", type=int, default=3, choices=range(6), help="optimisation level, 0 to 5")
    parser.add_argument("--dla", type=int, help="run on this DLA core; what it cannot run falls back to the GPU")
    parser.add_argument("--no-measure", action="store_true", help="build only")
    parser.add_argument("--verbose", action="store_true", help="TensorRT's own log")
    options = parser.parse_args(given)
    options.max_batch = options.max_batch or options.batch
    if not 1 <= options.batch <= options.max_batch:
        parser.error(f"--batch {options.batch} must be from 1 to --max-batch {options.max_batch}")
    if options.dla is not None and (options.dla < 0 or options.batch != options.max_batch):
        parser.error(f"--dla {options.dla} must be a core's number, and takes one batch size: leave out --max-batch")
    return options


def main(given: list[str] | None = None) -> int:
    """Build, inspect, time, and write the results."""
    options, folder = arguments(given), Path(__file__).resolve().parent
    settings, trt = read_settings(folder), load_tensorrt()
    options.output.mkdir(parents=True, exist_ok=True)
    plan, cache, seconds = build(trt, settings, folder, options)
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    if options.dla is not None:
        runtime.DLA_core = options.dla
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        fail(4, "TensorRT cannot load the engine that it built", "run again with --verbose")
    layers = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    record: dict[str, Any] = {
        "tensorrt": trt.__version__,
        "model_sha256": settings["sha256"],
        "engine_sha256": hashlib.sha256(plan).hexdigest(),
        "precision": settings["precision"],
        "batch": options.batch,
        "max_batch": options.max_batch,
        "build_seconds": round(seconds, 1),
        "engine_bytes": len(plan),
        "layers": engine.num_layers,
        "dla": options.dla,
        **inspected(layers),
        "device": device(),
    }
    if not options.no_measure:
        runner = Runner(trt, engine, settings, options.batch)
        record["compute_capability"] = ".".join(str(runner.cuda.attribute(n)) for n in (COMPUTE_MAJOR, COMPUTE_MINOR))
        record["latency"] = measure(runner)
    for name, content in (
        ("model.engine", plan),
        ("timing.cache", cache),
        ("engine.layers.json", layers.encode()),
        ("engine.json", (json.dumps(record, indent=2) + "\n").encode()),
    ):
        write(options.output / name, content)
    print(json.dumps(record, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
