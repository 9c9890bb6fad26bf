"""Hexagon: the contract on the CPU's stand-in, what the compiler is given, and parity on the emulator where it is.

The emulator comes with onnxruntime-qnn, in an environment that ``COMPACTOR_QNN_PYTHON`` names.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compactor import parity
from compactor.backends.qnn import environment
from compactor.backends.qnn.backend import COMPILED, MODEL, QnnBackend
from compactor.errors import ExitCode, MissingRuntimeError, UnsupportedError
from compactor.ir.program import Program
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.cast import cast_program
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.targets.registry import profiles
from tests.backends.models import inputs_for
from tests.backends.template import BackendContract, Device, digests, form
from tests.models import program
from tests.passes.support import context, export

BACKEND, SNAPDRAGON = QnnBackend(), profiles.resolve("qualcomm-8-gen-3")
emulator = pytest.mark.skipif(
    environment.interpreter() is None, reason=f"no onnxruntime-qnn here, and {environment.VARIABLE} names none"
)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without Qualcomm's runtime."""
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.setattr(environment, "find_spec", lambda name: None)


@pytest.mark.usefixtures("nowhere")
class TestQnn(BackendContract):
    """At batch 1, sample by sample, on ONNX Runtime's CPU provider."""

    backend = BACKEND
    precisions = ("float16", "int8")
    refused = ("float32", "bfloat16")
    package = "onnxruntime_qnn"
    device = Device("qualcomm-8-gen-3", ("float16", "int8"))
    executable = False

    def test_shorter_sequences(self, lowered: Any, precision: str) -> None:
        session = self.session(lowered("encoder", precision))
        with pytest.raises(Exception, match="7"):
            session(inputs_for(form("encoder", precision), 3, sequence=7))


def prepared(name: str) -> Program:
    """A model of the tests, ready to be quantized."""
    return folded_program(canonical(program(name))[0])[0]


def quantized(whole: Program, folder: Path) -> Program:
    """The same, as `quantize.ptq` makes it for this target."""
    ctx = context(whole, folder, device=SNAPDRAGON, backend=BACKEND)  # type: ignore[arg-type]
    return PostTrainingQuantization(PtqConfig(samples=8)).run(whole, ctx).program


@pytest.mark.parametrize("model", ["residual", "encoder"])
@pytest.mark.usefixtures("nowhere")
def test_the_file_is_static_and_has_what_hexagon_runs(model: str, tmp_path: Path) -> None:
    whole = form(model, "int8")
    lowered = BACKEND.lower(whole, SNAPDRAGON, tmp_path)
    assert lowered.files == (MODEL,)
    found = onnx.load(tmp_path / MODEL)
    onnx.checker.check_model(found, full_check=True)
    assert not any(d.dim_param for v in found.graph.input for d in v.type.tensor_type.shape.dim)
    kinds = Counter(node.op_type for node in found.graph.node)
    assert not {"GatherND", "IsNaN", "Shape", "Range", "Expand", "And", "Not"} & set(kinds)
    stored = {t.name: t for t in found.graph.initializer}
    made = {name: node for node in found.graph.node for name in node.output}
    for node in found.graph.node:
        if node.op_type == "QuantizeLinear":
            assert stored[node.input[2]].data_type == onnx.TensorProto.UINT8
        if node.op_type == "DequantizeLinear" and node.input[0] in stored and stored[node.input[1]].dims:
            (reader,) = [n for n in found.graph.node if node.output[0] in n.input]
            users = [n for n in found.graph.node if reader.output[0] in n.input]
            assert [n.op_type for n in users] in (["QuantizeLinear"], ["Relu"]), "runs in integers"
        if node.op_type in ("Conv", "MatMul") and len(node.input) > 2:
            assert node.input[2] in stored and node.input[2] not in made, "biases are not quantized"


@pytest.mark.usefixtures("nowhere")
def test_scales_of_channels_become_factors_and_compute_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = form("residual", "int8")
    lowered = BACKEND.lower(whole, SNAPDRAGON, tmp_path)
    session = BACKEND.reference(lowered)
    assert session is not None
    inputs = inputs_for(whole, 3, seed=2)
    torch.testing.assert_close(session(inputs)[0], whole(*inputs), rtol=0.02, atol=0.02)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(tmp_path / MODEL, settings, providers=["CPUExecutionProvider"])
    rows = [plain.run(None, {"image": inputs[0][i : i + 1].numpy()})[0] for i in range(3)]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(rows)), whole(*inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("nowhere")
def test_without_the_runtime_opening_says_how_to_get_it(tmp_path: Path) -> None:
    lowered = BACKEND.lower(form("residual", "int8"), SNAPDRAGON, tmp_path)
    with pytest.raises(MissingRuntimeError, match=environment.VARIABLE) as caught:
        BACKEND.open(lowered)
    assert caught.value.exit_code == ExitCode.MISSING_RUNTIME


def test_a_python_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(MissingRuntimeError, match="cannot be started"):
        BACKEND.lower(form("residual", "int8"), SNAPDRAGON, tmp_path)


def script(folder: Path, lines: str) -> str:
    """What stands in for a Python that misbehaves."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{lines}\n")
    python.chmod(0o755)
    return str(python)


def test_a_python_without_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = '{"missing": "No module named onnxruntime_qnn"}'
    monkeypatch.setenv(environment.VARIABLE, script(tmp_path, f"echo '{missing}' > \"$3/result.json\""))
    with pytest.raises(MissingRuntimeError, match="lacks Qualcomm's runtime: No module named onnxruntime_qnn"):
        BACKEND.lower(form("residual", "int8"), SNAPDRAGON, tmp_path)


def test_a_compiler_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.VARIABLE, script(tmp_path, "echo out of VTCM >&2\nkill -SEGV $$"))
    with pytest.raises(UnsupportedError, match="ended with code -11: out of VTCM"):
        BACKEND.lower(form("residual", "int8"), SNAPDRAGON, tmp_path)


@emulator
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_b", "mobilenet_v2", "bert"])
def test_parity_on_the_emulator(name: str, tmp_path: Path) -> None:
    whole = quantized(prepared(name), tmp_path)
    (tmp_path / "out").mkdir()
    lowered = BACKEND.lower(whole, SNAPDRAGON, tmp_path / "out")
    assert lowered.files == (COMPILED, MODEL), "the context binary, and what it was made of"
    context_of = onnx.load(tmp_path / "out" / COMPILED)
    assert [node.op_type for node in context_of.graph.node] == ["EPContext"], "all of it runs on Hexagon"
    session = BACKEND.reference(lowered)
    assert session is not None
    found = parity.check(whole, session, whole.example_inputs(4, seed=3))
    assert "emulator" in session.runtime and found.passed, found


@emulator
@pytest.mark.slow
def test_float16_on_the_emulator(tmp_path: Path) -> None:
    whole = cast_program(prepared("resnet_b"), "float16")[0]
    session = BACKEND.reference(BACKEND.lower(whole, SNAPDRAGON, tmp_path))
    assert session is not None
    assert parity.check(whole, session, whole.example_inputs(2, seed=3)).passed


@emulator
@pytest.mark.slow
def test_the_same_program_compiles_to_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = (BACKEND.lower(form("residual", "int8"), SNAPDRAGON, folder) for folder in folders)
    assert digests(first) == digests(second)


@emulator
@pytest.mark.slow
def test_what_the_compiler_refuses_is_said(tmp_path: Path) -> None:
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.cumsum(1).det()

    whole = cast_program(export(Sorted(), (2, 4, 4)), "float16")[0]
    with pytest.raises(UnsupportedError):
        BACKEND.lower(whole, SNAPDRAGON, tmp_path)
