"""Every TensorRT name that the engine builder uses exists in all versions that it says it knows.

`NAMES` was checked on the bindings 10.0.1, 10.3.0 (JetPack 6), 10.16.1.11 and 11.4.0.106: the real modules, loaded
against empty libraries in place of the engine. The slow tests do so for the newest 10.x and 11.x of the package index;
to check other versions, put their wheels into a folder and set ``COMPACTOR_TENSORRT_WHEELS`` to it.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compactor.backends.tensorrt import backend

BUILDER = Path(backend.__file__).with_name(backend.BUILDER)
WHEELS = {"10": "tensorrt-cu12-bindings==10.*", "11": "tensorrt-cu13-bindings==11.*"}
NAMES = {
    "Builder": "num_DLA_cores create_network create_builder_config create_optimization_profile "
    "build_serialized_network",
    "BuilderFlag": "GPU_FALLBACK",
    "DataType": "itemsize",
    "DeviceType": "DLA",
    "EngineInspector": "get_engine_information",
    "IBuilderConfig": "profiling_verbosity builder_optimization_level set_memory_pool_limit add_optimization_profile "
    "create_timing_cache set_timing_cache get_timing_cache default_device_type DLA_core set_flag",
    "ICudaEngine": "create_engine_inspector create_execution_context num_layers num_io_tensors get_tensor_name "
    "get_tensor_mode get_tensor_dtype",
    "IExecutionContext": "set_input_shape get_tensor_shape set_tensor_address execute_async_v3",
    "INetworkDefinition": "num_inputs get_input",
    "IOptimizationProfile": "set_shape",
    "ITensor": "name shape",
    "ITimingCache": "serialize",
    "LayerInformationFormat": "JSON",
    "Logger": "INFO WARNING",
    "MemoryPoolType": "WORKSPACE",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "OnnxParser": "parse_from_file num_errors get_error",
    "ParserError": "desc",
    "ProfilingVerbosity": "DETAILED",
    "Runtime": "DLA_core deserialize_cuda_engine",
    "TensorIOMode": "INPUT",
}
_HANDED_OUT = {
    "DataType", "EngineInspector", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "INetworkDefinition",
    "IOptimizationProfile", "ITensor", "ITimingCache", "ParserError",
}  # fmt: skip
"""Classes that the builder does not name: their objects come out of others."""
_HOLDERS = {"trt", "builder", "network", "parser", "config", "profile", "tensor", "engine", "context", "runtime"}
"""Variables of the builder that hold TensorRT objects."""
_STUB = "void *{}(void) {{ return 0; }}\n"
_FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip


def _used() -> set[str]:
    """Names that the builder reads from TensorRT objects."""
    tree = ast.parse(BUILDER.read_text(encoding="utf-8"))
    command_line = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "arguments")
    tree.body.remove(command_line)
    return {name for node in ast.walk(tree) if isinstance(node, ast.Attribute) for name in _chain(node)}


def _chain(node: ast.expr) -> Iterator[str]:
    """``get_error, desc`` of ``parser.get_error(i).desc``; nothing where the first object is not TensorRT's."""
    names = []
    while isinstance(node, (ast.Attribute, ast.Call)):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        node = node.value if isinstance(node, ast.Attribute) else node.func
    if isinstance(node, ast.Name) and node.id == "self" and names:
        node = ast.Name(names.pop())
    if isinstance(node, ast.Name) and node.id in _HOLDERS:
        yield from (name for name in names if not name.startswith("__"))


def test_the_table_holds_what_the_builder_uses() -> None:
    known = {name for names in NAMES.values() for name in names.split()}
    assert _used() - set(NAMES) == known
    assert set(NAMES) - _used() == _HANDED_OUT


@pytest.fixture(scope="module", params=["10", "11"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bindings of a version: from the folder that was given, or from the package index."""
    given = os.environ.get("COMPACTOR_TENSORRT_WHEELS")
    folder, said = (Path(given), "") if given else _downloaded(request.param, tmp_path_factory.mktemp("wheels"))
    found = sorted(folder.glob(f"tensorrt_cu*_bindings-{request.param}.*.whl"))
    if not found:
        pytest.skip(f"no wheel of the TensorRT {request.param} bindings in {folder} {said}")
    return found[-1]


def _downloaded(version: str, folder: Path) -> tuple[Path, str]:
    """A folder with that wheel, and what pip said last where there is none."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), WHEELS[version]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return folder, done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> dict[str, str]:
    """An environment where the real bindings load, with an engine that does nothing."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    (tmp_path / "tensorrt.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )
    (tmp_path / "stub.c").write_text("".join(_STUB.format(name) for name in _FUNCTIONS))
    major = wheel.name.split("-")[1].partition(".")[0]
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        library = f"lib{name}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", library, "stub.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}


@pytest.mark.slow
def test_the_bindings_have_the_names(environment: dict[str, str]) -> None:
    code = (
        "import json, sys, tensorrt; table = json.loads(sys.argv[1]);"
        "print([(k, n) for k, names in table.items() for n in names.split() if not hasattr(getattr(tensorrt, k), n)])"
    )
    command = [sys.executable, "-c", code, json.dumps(NAMES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.slow
def test_a_machine_without_a_gpu_is_told_so(environment: dict[str, str], tmp_path: Path) -> None:
    """TensorRT hands out no builder there; the bindings raise TypeError."""
    shutil.copy(BUILDER, tmp_path / BUILDER.name)
    (tmp_path / "model.onnx").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    settings = {"model": "model.onnx", "sha256": empty, "precision": "float32", "inputs": {}}
    (tmp_path / "build.json").write_text(json.dumps(settings))
    command = [sys.executable, str(tmp_path / BUILDER.name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr and "->" in done.stderr
