"""What really runs in int8: the runtimes' own execution graphs of quantized students, product by product."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnxruntime
import pytest

from compactor import parity
from compactor.backend import Backend, Lowered
from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.backends.profiles import names_in
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized, split
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from tests.backends.template import Device
from tests.models import program
from tests.passes.support import context

pytest.importorskip("nncf")

INTEGER = ("QLinearConv", "ConvInteger", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm")
FLOAT = ("Conv", "FusedConv", "MatMul", "Gemm", "FusedGemm", "FusedMatMul")
LAYERS = {"resnet_b": 12, "mobilenet_v2": 17, "vit": 14, "bert": 14}
NAMES = sorted(LAYERS)
_PRODUCTS = ("Convolution.", "GroupConvolution.", "MatMul.", "Conv.", "Gemm.")


@cache
def student(name: str) -> Program:
    """As `quantize.ptq` makes it for the runtimes of CPUs."""
    whole = folded_program(canonical(program(name))[0])[0]
    with TemporaryDirectory() as folder:
        ctx = context(whole, Path(folder), backend=OnnxBackend())
        return PostTrainingQuantization(PtqConfig(samples=8)).run(whole, ctx).program


def rounded(whole: Program) -> set[str]:
    """The convolutions and linear layers that are to run on integers: those with quantized weights."""
    return {e.node for q in whole.quantization if q.weight for e in q.edges if e.op in ("conv2d", "linear")}


def of_origin(notes: str, kind: str, origins: Mapping[str, str]) -> dict[str, str]:
    """``kind`` for the product of the Program that an executed node stands for."""
    return {origins[n]: kind for n in names_in(notes) if n.startswith(_PRODUCTS) and n in origins}


def openvino_products(lowered: Lowered) -> dict[str, str]:
    """The precision in which each product of the Program ran."""
    session: Any = OpenVINOBackend().open(lowered, batch=1)
    found: dict[str, str] = {}
    for op in session.compiled.get_runtime_model().get_ordered_ops():
        notes = {
            key: op.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision", "originalLayersNames")
        }
        if notes["layerType"] in ("Convolution", "FullyConnected", "MatMul"):
            found |= of_origin(notes["originalLayersNames"], notes["runtimePrecision"], lowered.origins)
    return found


def onnx_products(lowered: Lowered, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The operator that computes each product of the Program, after ONNX Runtime's own optimisation."""
    path, original = lowered.folder / "optimised.onnx", onnxruntime.SessionOptions

    def options() -> Any:
        made = original()
        made.optimized_model_filepath = str(path)
        return made

    monkeypatch.setattr(onnxruntime, "SessionOptions", options)
    OnnxBackend().open(lowered)
    found: dict[str, str] = {}
    for node in onnx.load(path).graph.node:
        if node.op_type in INTEGER + FLOAT:
            found |= of_origin(node.name, node.op_type, lowered.origins)
    return found


def lower(backend: Backend, whole: Program, folder: Path) -> Lowered:
    return backend.lower(whole, Device(), folder)


@pytest.mark.parametrize("name", NAMES)
def test_openvino_computes_every_quantized_product_in_integers(name: str, tmp_path: Path) -> None:
    lowered = lower(OpenVINOBackend(), student(name), tmp_path)
    ran = openvino_products(lowered)
    assert {node for node, kind in ran.items() if kind in ("i8", "u8")} == rounded(student(name))
    assert len(rounded(student(name))) == LAYERS[name], "all convolutions and linear layers"
    inputs = student(name).example_inputs(8, seed=3)
    assert parity.check(student(name), OpenVINOBackend().open(lowered), inputs).passed


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_computes_every_quantized_product_in_integers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = onnx_products(lower(OnnxBackend(), student(name), tmp_path), monkeypatch)
    # Its integer convolution must end in a quantizer, and behind the patches of a ViT none stands.
    exceptions = {"conv2d"} if name == "vit" else set()
    assert {node for node, kind in ran.items() if kind in INTEGER} == rounded(student(name)) - exceptions


def test_a_placement_that_stops_fusing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, plan = split(student("resnet_b"))
    before = next(q.source for q in plan if any(e.op == "add" for e in q.edges) and q.source.startswith("conv2d"))
    adds = [e.node for q in plan if q.source == before for e in q.edges]
    changed = quantized(exact, plan.without(adds))
    ran = onnx_products(lower(OnnxBackend(), changed, tmp_path), monkeypatch)
    assert ran[before] in FLOAT and ran["conv2d"] == "QLinearConv"


@pytest.mark.parametrize("name", NAMES)
def test_signs_are_made_one_without_a_change(name: str, tmp_path: Path) -> None:
    whole = student(name)
    session = OnnxBackend().open(lower(OnnxBackend(), whole, tmp_path))
    assert parity.check(whole, session, whole.example_inputs(8)).error < 1e-2
    model = onnx.load(tmp_path / "model.onnx")
    stored = {t.name: t.data_type for t in model.graph.initializer}
    kinds = {stored[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert len(kinds) == 1, "all activations are of one type"
