"""ONNX Runtime: the contract, integer kernels, and what its files hold."""

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.onnx.export import write_onnx
from compactor.frontend import export
from tests.backends.models import encoder, inputs_for, quantized
from tests.backends.template import BackendContract, Device, form
from tests.passes.support import traced


class TestOnnx(BackendContract):
    """ONNX Runtime keeps every promise but bfloat16."""

    backend = OnnxBackend()
    precisions = ("float32", "float16", "int8")
    refused = ("bfloat16",)
    package = "onnxruntime"


def kernels(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counter[str]:
    """Operators of the optimised graph that a session runs."""
    made: list[Any] = []
    original = onnxruntime.SessionOptions

    def options() -> Any:
        made.append(original())
        made[-1].optimized_model_filepath = str(tmp_path / "optimised.onnx")
        return made[-1]

    monkeypatch.setattr(onnxruntime, "SessionOptions", options)
    backend = OnnxBackend()
    lowered = backend.lower(form(path.name, "int8"), Device(), tmp_path)
    backend.open(lowered)
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


def test_the_table_of_operators_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    program, first, second = form("residual", "float32"), tmp_path / "first.onnx", tmp_path / "second.onnx"
    write_onnx(program, first)

    def again(cls: type, opset_version: int) -> None:
        raise AssertionError("read again")

    own = classmethod(again)
    monkeypatch.setattr(registration.ONNXRegistry, "from_torchlib", own)
    write_onnx(program, second)
    assert first.read_bytes() == second.read_bytes()
    assert registration.ONNXRegistry.__dict__["from_torchlib"] is own, "what others call stays what it was"


def test_linears_run_on_integers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = kernels(Path("encoder"), monkeypatch, tmp_path)
    assert found["MatMulIntegerToFloat"] == 7
    assert found["DequantizeLinear"] == 0


def test_convolution_between_quantizers_runs_on_integers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert kernels(Path("residual"), monkeypatch, tmp_path)["QLinearConv"] == 1


@pytest.mark.parametrize("clamp", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.3, 0.2)])
def test_clamps_between_convolutions_run_on_integers(clamp: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), clamp, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 5))
    program = quantized(export(body.eval(), (torch.randn(2, 3, 8, 8),)))
    backend = OnnxBackend()
    lowered = backend.lower(program, Device(), tmp_path)
    found = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert found["Relu"] == 0 and found["Clip"] == 1
    after = [n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node]
    assert after.index("Clip") > after.index("QuantizeLinear", after.index("Conv"))
    inputs = inputs_for(program, 4)
    torch.testing.assert_close(backend.open(lowered)(inputs)[0], program(*inputs), atol=0.02, rtol=0.02)


def test_weights_quantized_in_the_graph_are_stored_as_integers(tmp_path: Path) -> None:
    sizes = []
    for fold in (True, False):
        path = tmp_path / f"{fold}.onnx"
        write_onnx(quantized(encoder(), fold=fold), path)
        model = onnx.load(path)
        onnx.checker.check_model(model)
        assert Counter(t.data_type for t in model.graph.initializer)[onnx.TensorProto.INT8] >= 7
        sizes.append(path.stat().st_size)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_model_is_valid_and_names_what_users_know(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(form("two_in_two_out", "float32"), path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [v.name for v in model.graph.input] == ["image", "vector", "unused"]
    assert [v.name for v in model.graph.output] == ["output_0", "output_1"]
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", 3, 9, 9]
    assert model.producer_name == "compactor"
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_attention_has_no_guards_that_break_its_fusion(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(form("encoder", "float32"), path)
    found = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert found["IsNaN"] == 0
    assert found["Where"] == 1


def test_zeros_around_a_max_pooling_stay_zeros(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 3, 3)
    program = traced(lambda x: F.max_pool2d(F.pad(layer(x), (1, 1, 1, 1)), 3, 2), 2, 3, 8, 8)
    path = tmp_path / "model.onnx"
    write_onnx(program, path)
    (inputs,) = program.example_inputs(2)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), program(inputs), atol=1e-5)
