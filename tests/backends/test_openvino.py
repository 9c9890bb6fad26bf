"""OpenVINO: the contract, precision hints and integer kernels."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from compactor.backend import Lowered
from compactor.backends.openvino.backend import OpenVINOBackend
from tests.backends.template import BackendContract, Device, form

BACKEND = OpenVINOBackend()


class TestOpenVINO(BackendContract):
    """OpenVINO keeps every promise."""

    backend = BACKEND
    precisions = ("float32", "float16", "bfloat16", "int8")
    package = "openvino"

    def hide_runtime(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The core is cached, so the cache goes too."""
        from compactor.backends.openvino import backend, runtime

        super().hide_runtime(monkeypatch)
        for module in (backend, runtime):
            monkeypatch.setattr(module, "core", module.core.__wrapped__)


def lower(model: str, precision: str, folder: Path) -> Lowered:
    return BACKEND.lower(form(model, precision), Device(), folder)


def kernels(lowered: Lowered) -> Counter[str]:
    """``Convolution.u8`` and the like, of the compiled model."""
    session: Any = BACKEND.open(lowered, batch=1)
    notes = [op.get_rt_info() for op in session.compiled.get_runtime_model().get_ops()]
    return Counter(f"{n['layerType'].astype(str)}.{n['runtimePrecision'].astype(str)}" for n in notes)


def test_int8_convolutions_and_linears_run_on_integers(tmp_path: Path) -> None:
    found = kernels(lower("residual", "int8", tmp_path))
    assert sum(n for kernel, n in found.items() if kernel in ("Convolution.u8", "Convolution.i8")) == 4
    assert not found["Convolution.f32"]


def test_int8_linears_run_on_integers(tmp_path: Path) -> None:
    found = kernels(lower("encoder", "int8", tmp_path))
    assert found["FullyConnected.i8"] == 7
    assert not found["FullyConnected.f32"]


def test_float32_stays_float32_whatever_the_machine_offers(tmp_path: Path) -> None:
    lowered = lower("encoder", "float32", tmp_path)
    session: Any = BACKEND.open(lowered)
    assert session.compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert lowered.options["precision_hint"] == "f32"


def test_attention_is_one_fused_kernel(tmp_path: Path) -> None:
    found = kernels(lower("encoder", "float32", tmp_path))
    assert not [kernel for kernel in found if kernel.startswith("Softmax")]


def test_threads_are_obeyed(tmp_path: Path) -> None:
    session: Any = BACKEND.open(lower("residual", "float32", tmp_path), threads=1)
    assert session.compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_half_precisions_store_half(tmp_path: Path) -> None:
    sizes = {}
    for precision in ("float32", "bfloat16"):
        (tmp_path / precision).mkdir()
        sizes[precision] = (lower("encoder", precision, tmp_path / precision).folder / "model.bin").stat().st_size
    assert sizes["bfloat16"] < 0.55 * sizes["float32"]


def tables(folder: Path) -> Counter[str]:
    """Types of the constants with two or more long dimensions."""
    import openvino

    nodes = openvino.Core().read_model(folder / "model.xml").get_ops()
    found = [n for n in nodes if n.get_type_name() == "Constant" and sum(size > 1 for size in n.shape) > 1]
    return Counter(n.get_output_element_type(0).get_type_name() for n in found)


def test_what_stays_float_in_an_int8_model_is_stored_in_half(tmp_path: Path) -> None:
    lowered = lower("encoder", "int8", tmp_path)
    found = tables(tmp_path)
    assert found["f16"] >= 2, "words and positions"
    assert not found["f32"] and found["i8"] == 7
    assert kernels(lowered)["FullyConnected.i8"] == 7


def test_values_beyond_half_stay_float32(tmp_path: Path) -> None:
    program = form("encoder", "int8")
    table = program.state["words.weight"].clone()
    table[0, 0] = 1e6
    BACKEND.lower(program.with_state({"words.weight": table}), Device(), tmp_path)
    assert tables(tmp_path)["f32"] == 1


def test_files_name_no_version_and_no_path(tmp_path: Path) -> None:
    text = (lower("residual", "int8", tmp_path).folder / "model.xml").read_text()
    assert str(tmp_path) not in text
    assert "Runtime_version" not in text


def test_an_npu_model_opens_on_the_cpu_where_there_is_none(tmp_path: Path) -> None:
    lowered = BACKEND.lower(form("residual", "float16"), Device("intel-npu-4000", ("float16",)), tmp_path)
    assert lowered.options["device"] == "NPU"
    assert "CPU" in BACKEND.open(lowered).runtime
