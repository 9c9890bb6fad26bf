"""What really runs in int8: the runtimes' own execution graphs of quantized students, product by product."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnxruntime
import pytest

from compactor.backend import Backend, Lowered
from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.backends.profiles import names_in
from compactor.ir.program import Program
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from tests.backends.template import Device
from tests.models import program
from tests.passes.support import context

pytest.importorskip("nncf")

INTEGER = ("QLinearConv", "ConvInteger", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm")
FLOAT = ("Conv", "FusedConv", "MatMul", "Gemm", "FusedGemm", "FusedMatMul")
_PRODUCTS = ("Convolution.", "GroupConvolution.", "MatMul.", "Conv.", "Gemm.")


@cache
def student(name: str) -> Program:
    """As `quantize.ptq` makes it for the runtimes of CPUs."""
    whole = folded_program(canonical(program(name))[0])[0]
    with TemporaryDirectory() as folder:
        ctx = context(whole, Path(folder), backend=OnnxBackend())
        return PostTrainingQuantization(PtqConfig(samples=8)).run(whole, ctx).program


def rounded(whole: Program) -> set[str]:
    """The convolutions and linear layers whose input and weight are both quantized."""
    places = {(e.node, e.place) for q in whole.quantization for e in q.edges if e.op in ("conv2d", "linear")}
    return {node for node, place in places if place == 0 and (node, 1) in places}


def of_origin(notes: str, kind: str, origins: Mapping[str, str]) -> dict[str, str]:
    """``kind`` for the product of the Program that an executed node stands for."""
    return {origins[n]: kind for n in names_in(notes) if n.startswith(_PRODUCTS) and n in origins}


def openvino_products(lowered: Lowered) -> dict[str, str]:
    """The precision in which each product of the Program ran."""
    session: Any = OpenVINOBackend().open(lowered, batch=1)
    found: dict[str, str] = {}
    for op in session.compiled.get_runtime_model().get_ordered_ops():
        notes = {key: op.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision", "originalLayersNames")}
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


def lower(backend: Backend, name: str, folder: Path) -> Lowered:
    return backend.lower(student(name), Device(), folder)


@pytest.mark.parametrize("name", ["resnet_b", "mobilenet_v2", "vit", "bert"])
def test_openvino(name: str, tmp_path: Path) -> None:
    ran = openvino_products(lower(OpenVINOBackend(), name, tmp_path))
    print(name, len(rounded(student(name))), ran)
    assert {node for node, kind in ran.items() if kind in ("i8", "u8")} == rounded(student(name))


@pytest.mark.parametrize("name", ["resnet_b", "mobilenet_v2", "vit", "bert"])
def test_onnx(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = onnx_products(lower(OnnxBackend(), name, tmp_path), monkeypatch)
    print(name, len(rounded(student(name))), ran)
    assert {node for node, kind in ran.items() if kind in INTEGER} == rounded(student(name))
