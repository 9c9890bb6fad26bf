"""What an Intel NPU would refuse is refused before it is lowered, naming the node."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compactor.backends.openvino import npu
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.errors import ExitCode, UnsupportedError
from compactor.targets.registry import profiles
from tests.backends.models import cast, encoder, inputs_for, residual, two_in_two_out
from tests.backends.template import form

openvino: Any = pytest.importorskip("openvino")
from openvino import opset13, opset15  # noqa: E402

BACKEND, NPU = OpenVINOBackend(), profiles.resolve("intel-npu-4000")


@pytest.mark.parametrize("model", [residual, encoder, two_in_two_out])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_what_it_takes_is_lowered(model: Any, precision: str, tmp_path: Path) -> None:
    program = cast(model(), torch.float16) if precision == "float16" else form(model.__name__, "int8")
    lowered = BACKEND.lower(program, NPU, tmp_path)
    assert lowered.options["device"] == "NPU"
    assert BACKEND.open(lowered, batch=1)(inputs_for(program, 1))


def node(kind: str) -> Any:
    """A model of one operator."""
    x = opset13.parameter([2, 3], np.float32, name="x")
    made = {
        "CumSum": lambda: opset13.cum_sum(x, 1),
        "Unique": lambda: opset13.unique(x).output(0),
        "NonZero": lambda: opset13.non_zero(x),
        "Multinomial": lambda: opset13.multinomial(x, 1, "i64", False, False),
        "ScatterNDUpdate": lambda: opset15.scatter_nd_update(x, [[0]], np.ones((1, 3), np.float32)),
        "f64": lambda: opset13.convert(opset13.convert(x, "f64") * opset13.constant(2.0, np.float64), "f32"),
    }[kind]()
    return openvino.Model([made], [x], "model")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Unique", "knows no Unique"),
        ("Multinomial", "knows no Multinomial"),
        ("ScatterNDUpdate", "knows no ScatterNDUpdate of opset15"),
        ("NonZero", "depends on values, and must be static"),
        ("f64", "computes in f64"),
    ],
)
def test_every_rule_names_the_node(kind: str, words: str) -> None:
    model = node(kind)
    found = npu.reasons(model, {"x": [2, 3]})
    assert any(words in reason for reason in found), found
    names = {op.get_friendly_name() for op in model.get_ops()}
    assert any(reason.split(":")[0].split(" (")[0] in names for reason in found)
    with pytest.raises(UnsupportedError, match="intel-npu-4000 cannot run this model") as caught:
        npu.check(model, {"x": [2, 3]}, "intel-npu-4000")
    assert caught.value.exit_code == ExitCode.UNSUPPORTED and "CPU" in caught.value.remedy


def test_a_supported_operator_has_no_reasons_and_the_model_stays() -> None:
    model = node("CumSum")
    before = [op.get_type_name() for op in model.get_ordered_ops()]
    assert npu.reasons(model, {"x": [2, 3]}) == []
    assert [op.get_type_name() for op in model.get_ordered_ops()] == before


def test_nothing_is_left_of_a_model_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npu, "OPERATORS", npu.OPERATORS - {"Convolution"})
    program = cast(residual(), torch.float16)
    with pytest.raises(UnsupportedError, match="knows no Convolution"):
        BACKEND.lower(program, NPU, tmp_path)
    assert not list(tmp_path.iterdir())
