"""TensorRT: parity of the ONNX file, its types, the quantizer rules, and the engine builder's errors."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch

from compactor import parity
from compactor.backends.tensorrt import build_engine, runtime
from compactor.backends.tensorrt.backend import BUILDER, SETTINGS, TensorRTBackend
from compactor.errors import InputError, MissingRuntimeError, UnsupportedError
from compactor.ir import graphs
from compactor.ir.program import Program
from tests.backends.models import inputs_for
from tests.backends.template import BackendContract, Device, form

BACKEND = TensorRTBackend()
ORIN = Device("jetson-orin", ("float32", "float16", "int8"))


class TestTensorRT(BackendContract):
    """Everything but opening a session, which only the device can."""

    backend = BACKEND
    precisions = ("float32", "float16", "int8")
    refused = ("bfloat16",)
    package = "tensorrt"
    device = ORIN
    executable = False


def test_opening_says_what_completes_the_model(tmp_path: Path) -> None:
    lowered = BACKEND.lower(form("residual", "float32"), ORIN, tmp_path)
    assert not BACKEND.installed()
    with pytest.raises(MissingRuntimeError, match=r"build_engine\.py"):
        BACKEND.open(lowered)


def test_a_device_without_tensorrt_is_told_so(tmp_path: Path) -> None:
    lowered = BACKEND.lower(form("residual", "float32"), ORIN, tmp_path)
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is here")
    with pytest.raises(MissingRuntimeError, match=r"Python module cannot be loaded.*\n.*python3-libnvinfer"):
        runtime.load([tmp_path / name for name in lowered.files], lowered.precision, lowered.options)
    (tmp_path / "model.onnx").write_bytes(b"other")
    with pytest.raises((InputError, MissingRuntimeError)):
        runtime.load([tmp_path / name for name in lowered.files], lowered.precision, lowered.options)


def test_int8_computes_in_float16_between_quantizers(tmp_path: Path) -> None:
    BACKEND.lower(form("encoder", "int8"), ORIN, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer)
    assert kinds["FLOAT"] == 0
    assert kinds["INT8"] >= 7
    assert [v.type.tensor_type.elem_type for v in model.graph.output] == [onnx.TensorProto.FLOAT]
    casts = [n for n in model.graph.node if n.op_type == "Cast"]
    assert len(casts) == 2, "the mask on entry, the logits on exit"


def with_scale(program: Program, change: object) -> Program:
    """The Program with one argument of its first activation quantizer pair changed."""
    graph, _ = graphs.copy_graph(program.graph)
    for node in [n for n in graph.nodes if "quantize_per_tensor" in str(n.target)][:2]:
        node.args = (*node.args[:2], change, *node.args[3:])
    return replace(program, graph=graph)


def test_a_zero_point_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"quantizer .* zero point that is not 0\n.*symmetric"):
        BACKEND.lower(with_scale(form("residual", "int8"), 3), ORIN, tmp_path)


def test_scales_on_the_wrong_axis_are_refused(tmp_path: Path) -> None:
    program = form("residual", "int8")
    graph, _ = graphs.copy_graph(program.graph)
    node = next(n for n in graph.nodes if "dequantize_per_channel" in str(n.target) and "a_weight" in str(n.args[0]))
    node.args = (*node.args[:3], 1, *node.args[4:])
    with pytest.raises(UnsupportedError, match="axis 1"):
        BACKEND.lower(replace(program, graph=graph), ORIN, tmp_path)


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(folder / BUILDER), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_builder_without_tensorrt_says_so(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    BACKEND.lower(form("residual", "float32"), ORIN, tmp_path)
    settings = json.loads((tmp_path / SETTINGS).read_text())
    assert settings["inputs"] == {"image": [-1, 3, 16, 16]}
    result = run(tmp_path)
    assert result.returncode == 5
    assert "->" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "model.engine").exists()


def test_builder_refuses_a_damaged_model(tmp_path: Path) -> None:
    BACKEND.lower(form("residual", "float32"), ORIN, tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    result = run(tmp_path)
    assert result.returncode == 3
    assert "sha256" in result.stderr
    (tmp_path / SETTINGS).unlink()
    assert run(tmp_path).returncode == 3


def test_builder_refuses_impossible_batches(tmp_path: Path) -> None:
    BACKEND.lower(form("residual", "float32"), ORIN, tmp_path)
    result = run(tmp_path, "--batch", "4", "--max-batch", "2")
    assert result.returncode == 2
    assert "--max-batch 2" in result.stderr


def test_masks_beyond_float16_do_not_become_nan(tmp_path: Path) -> None:
    lowered = BACKEND.lower(form("encoder", "int8"), ORIN, tmp_path)
    session = BACKEND.reference(lowered)
    assert session is not None
    tokens, mask = torch.ones(1, 12, dtype=torch.int64), torch.zeros(1, 12, dtype=torch.int64)
    assert session((tokens, mask))[0].isfinite().all()


@pytest.mark.parametrize("factor", [1e-3, 1e-7])
def test_nearly_dead_channels_keep_their_biases(factor: float, tmp_path: Path) -> None:
    program = form("residual", "int8")
    scale = program.state["point.weight_scale"].clone()
    scale[::2] *= factor
    program = program.with_state({"point.weight_scale": scale})
    session = BACKEND.reference(BACKEND.lower(program, ORIN, tmp_path))
    assert session is not None
    assert parity.check(program, session, inputs_for(program, 8)).error < 5e-3


def test_the_inspection_says_what_ran_in_integers() -> None:
    layers = [
        {"Name": "a", "LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Thirty-two wide Int8 format"}]},
        {"Name": "b", "LayerType": "DLA", "Outputs": [{"Format/Datatype": "Row major linear FP16 format"}]},
        {"Name": "c", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Half"}]},
        {"Name": "d", "LayerType": "Constant", "Outputs": []},
    ]
    found = build_engine.inspected(json.dumps({"Layers": layers, "Bindings": []}))
    assert found == {"layer_types": {"int8": 1, "fp16": 2, "other": 1}, "on_dla": ["b"]}
    assert build_engine.inspected('{"Layers": ["a"]}') == {"layer_types": {}, "on_dla": []}


@pytest.mark.parametrize("more", [["--max-batch", "4"], ["--dla", "-1"]])
def test_a_dla_takes_one_batch_size(more: list[str], tmp_path: Path) -> None:
    BACKEND.lower(form("residual", "float32"), ORIN, tmp_path)
    result = run(tmp_path, "--dla", "0", *more)
    assert result.returncode == 2 and "--dla" in result.stderr
