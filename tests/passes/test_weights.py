"""`quantize.weights`: linear weights in 4 bits on the runtimes that have kernels for them, and smaller files."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compactor import parity
from compactor.backend import Backend
from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.backends.tensorrt.backend import TensorRTBackend
from compactor.budget import Budget
from compactor.errors import UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized, split
from compactor.ir.verify import verify
from compactor.ir.weightonly import packable
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.quantize.weights import WeightOnly, WeightsConfig
from tests.backends.template import Device as Here
from tests.backends.template import digests
from tests.models import program
from tests.passes.support import Device, context, error, export, reloaded

BACKENDS = [OpenVINOBackend(), OnnxBackend()]


class Mixer(nn.Module):
    """Linear layers of odd and even widths, with and without bias, on (N, C) and (N, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(96, 256, bias=False), nn.Linear(256, 95)
        self.out, self.head = nn.Linear(95, 33), nn.Linear(33, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.out(torch.relu(self.down(torch.nn.functional.gelu(self.up(x)))))
        logits: Tensor = self.head(h.mean(1))
        return logits


def mixer() -> Program:
    torch.manual_seed(0)
    return export(Mixer(), (2, 7, 96))


def wide() -> Program:
    torch.manual_seed(1)
    return export(nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)), (2, 256))


MODELS = {"mixer": mixer, "wide": wide} | {
    name: lambda name=name: canonical(program(name))[0]  # type: ignore[misc]
    for name in ("bert", "vit")
}


def stored(name: str, folder: Path, backend: Backend | None = None, **options: Any) -> Program:
    whole = MODELS[name]()
    result = WeightOnly(WeightsConfig(**options)).run(whole, context(whole, folder, backend=backend or BACKENDS[0]))
    return result.program


@pytest.mark.parametrize(("name", "group"), [("mixer", 0), ("mixer", 64), ("bert", 16), ("vit", 16)])
def test_every_linear_has_four_bits(name: str, group: int, tmp_path: Path) -> None:
    before, after = MODELS[name](), stored(name, tmp_path, group=group)
    verify(after)
    assert after.precision == "float32" and len(after.inputs) == len(before.inputs)
    linears = [n for n in after.graph.nodes if str(n.target) == "aten.linear.default"]
    found = packable(after)
    assert len(found) == len(linears) and after.cost().parameters == before.cost().parameters
    for weight in found.values():
        assert weight.bits == 4 and int(weight.values.abs().max()) <= 7 and weight.values.dtype == torch.int8
        assert weight.group == (group if group and weight.columns % group == 0 else weight.columns)
    assert 0 < error(before, after) < 0.5
    assert error(after, reloaded(after, tmp_path)) == 0
    assert quantized(*split(after)).evolve(precision="float32").fingerprint == after.fingerprint


def test_smaller_groups_are_nearer(tmp_path: Path) -> None:
    whole = wide()
    found = []
    for options in ({"group": 0}, {"group": 64}, {"group": 16}, {"bits": 8}):
        config = WeightsConfig(**options)  # type: ignore[arg-type]
        made = WeightOnly(config).run(whole, context(whole, tmp_path, backend=BACKENDS[0]))
        found.append((made.metrics["error"], error(whole, made.program)))
    assert found == sorted(found, reverse=True) and found[-1][1] < 0.02


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
@pytest.mark.parametrize(
    ("name", "group"), [("mixer", 0), ("mixer", 32), pytest.param("bert", 16, marks=pytest.mark.slow)]
)
def test_runtimes_compute_it(name: str, group: int, backend: Backend, tmp_path: Path) -> None:
    made = stored(name, tmp_path, group=group)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    lowered, again = (backend.lower(made, Here(), folder) for folder in folders)
    assert digests(lowered) == digests(again)
    for batch in (1, 4):
        inputs = made.example_inputs(batch, seed=batch)
        found = parity.check(made, backend.open(lowered), inputs)
        assert found.passed, found
    assert parity.check(made, backend.open(lowered, batch=1), made.example_inputs(1)).passed


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
def test_files_shrink_to_an_eighth(backend: Backend, tmp_path: Path) -> None:
    sizes = []
    for made in (wide(), stored("wide", tmp_path, group=64)):
        (tmp_path / str(len(sizes))).mkdir()
        lowered = backend.lower(made, Here(), tmp_path / str(len(sizes)))
        sizes.append(max((lowered.folder / f).stat().st_size for f in lowered.files if not f.endswith(".xml")))
    bits = 4 + 32 / 64
    assert sizes[1] < (bits / 32 + 0.01) * sizes[0] + 4000


def test_openvino_keeps_the_bits_packed(tmp_path: Path) -> None:
    import openvino

    lowered = BACKENDS[0].lower(stored("wide", tmp_path, group=64), Here(), tmp_path)
    nodes = openvino.Core().read_model(lowered.folder / lowered.files[0]).get_ops()
    tables = [n for n in nodes if n.get_type_name() == "Constant" and len(n.shape) == 3]
    kinds = Counter(n.get_element_type().get_type_name() for n in tables)
    assert kinds["i4"] == 2
    session: Any = BACKENDS[0].open(lowered, batch=1)
    ran = session.compiled.get_runtime_model().get_ordered_ops()
    layers = [op for op in ran if op.get_rt_info()["layerType"].astype(str) == "FullyConnected"]
    held = [layer.input_value(1).get_element_type().get_type_name() for layer in layers]
    assert held == ["i4", "i4"], "weights are decompressed while they are read, not when the model is loaded"


def test_onnx_runtime_runs_its_own_operator(tmp_path: Path) -> None:
    lowered = BACKENDS[1].lower(stored("mixer", tmp_path, group=32), Here(), tmp_path)
    model = onnx.load(lowered.folder / lowered.files[0])
    kinds = Counter((n.domain, n.op_type) for n in model.graph.node)
    assert kinds["com.microsoft", "MatMulNBits"] == 4 and not kinds["", "MatMul"] and not kinds["", "Gemm"]
    assert {o.domain: o.version for o in model.opset_import}["com.microsoft"] == 1
    assert "MatMulNBits" in {name.split(".")[0] for name in lowered.origins}, "profiles know what it was made of"


def test_a_tied_table_stays_exact(tmp_path: Path) -> None:
    whole = canonical(program("tied_lm"))[0]
    made = WeightOnly(WeightsConfig(group=16)).run(whole, context(whole, tmp_path, backend=BACKENDS[0])).program
    table = next(n.args[0] for n in made.graph.nodes if str(n.target) == "aten.embedding.default")
    assert torch.equal(made.state[str(table.target)], whole.state[str(table.target)])  # type: ignore[union-attr]
    (tmp_path / "lowered").mkdir()
    lowered = BACKENDS[0].lower(made, Here(), tmp_path / "lowered")
    assert parity.check(made, BACKENDS[0].open(lowered), whole.example_inputs(2)).passed


def test_refusals(tmp_path: Path) -> None:
    whole = wide()
    for backend, bits in ((TensorRTBackend(), 4), (OnnxBackend(), 8)):
        config = WeightsConfig(bits=bits)  # type: ignore[arg-type]
        ctx = context(whole, tmp_path, backend=backend)
        with pytest.raises(UnsupportedError, match=f"has no kernels here for weights of {bits} bits"):
            WeightOnly(config).run(whole, ctx)
    assert "TensorRT" in WeightOnly().refuses(whole, Device(backend="tensorrt"), Budget())[0]  # type: ignore[arg-type]
    assert not WeightOnly().refuses(whole, Device(backend="onnx"), Budget())  # type: ignore[arg-type]
    assert "no linear layer" in WeightOnly().refuses(convolution(), Device(), Budget())[0]  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="bfloat16 already"):
        WeightOnly().run(whole.evolve(precision="bfloat16"), context(whole, tmp_path))
    assert TensorRTBackend().supports(stored("wide", tmp_path), Here())


def convolution() -> Program:
    return export(nn.Sequential(nn.Conv2d(3, 4, 3)), (2, 3, 8, 8))


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_packing_keeps_every_integer(rows: int, columns: int, seed: int) -> None:
    from compactor.backends.onnx import nbits
    from compactor.backends.openvino import packed
    from compactor.ir.weightonly import Packable

    values = torch.randint(-7, 8, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    flat = packed._nibbles(values.numpy())
    halves = np.stack([flat & 15, flat >> 4], 1).reshape(-1)[: rows * columns].astype(np.int8)
    assert (np.where(halves > 7, halves - 16, halves).reshape(rows, columns) == values.numpy()).all()
    blocks = nbits._blocks(Packable(values, torch.ones(rows, 1), 4))
    pairs = np.stack([blocks & 15, blocks >> 4], -1).reshape(rows, -1).astype(np.int8) - 8
    assert (pairs[:, :columns] == values.numpy()).all() and not pairs[:, columns:].any()
