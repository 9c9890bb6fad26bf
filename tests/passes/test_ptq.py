"""`quantize.ptq`: plain QDQ that computes what NNCF's module computes, deterministic and reloadable."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx

from compactor import scoring
from compactor.backend import Backend
from compactor.backends.tensorrt.backend import TensorRTBackend
from compactor.errors import InputError, UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.ir.quantized import is_dequantize, is_quantize
from compactor.ir.quantizing import quantized
from compactor.ir.verify import verify
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.calibrate import CalibrationConfig, calibrated, samples_of, settings_of
from compactor.passes.quantize.convert import to_plan
from compactor.passes.quantize.nncf_run import quantize
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.passes.quantize.twin import static_twin
from tests.models import program
from tests.passes.support import Device, Tensors, context, error, outputs, reloaded

pytest.importorskip("nncf")

SMALL = ["resnet_b", "mobilenet_v2", "bert", "gpt2"]


def _prepared(name: str) -> Program:
    return folded_program(canonical(program(name))[0])[0]


def _run(whole: Program, folder: Path, backend: Backend | None = None, **options: Any) -> Program:
    made = PostTrainingQuantization(PtqConfig(samples=8, **options)).run(whole, context(whole, folder, backend=backend))
    return made.program


def _quantizers(whole: Program) -> Iterator[fx.Node]:
    return (n for n in whole.graph.nodes if is_quantize(n))


@pytest.mark.parametrize("name", SMALL)
def test_int8_where_it_belongs(name: str, tmp_path: Path) -> None:
    before = _prepared(name)
    after = _run(before, tmp_path)
    verify(after)
    assert after.precision == "int8" and list(_quantizers(after))
    for node in after.graph.nodes:
        if str(node.target) not in ("aten.conv2d.default", "aten.linear.default"):
            continue
        weight = node.args[1]
        assert is_dequantize(weight) and weight.args[0].op == "get_attr"
        stored = after.state[str(weight.args[0].target)]
        assert stored.dtype == torch.int8 and int(stored.min()) >= -127
        assert weight.args[3] == 0, "per output channel"
        assert int(after.state[str(weight.args[2].target)].abs().max()) == 0, "symmetric"
        bias = node.args[2] if len(node.args) > 2 else None
        assert bias is None or (bias.op == "get_attr" and after.state[str(bias.target)].dtype == torch.float32)
    assert after.cost().parameters == before.cost().parameters
    assert error(before, after) <= 0.15


@pytest.mark.parametrize("name", SMALL)
def test_computes_what_nncf_computes(name: str, tmp_path: Path) -> None:
    before = _prepared(name)
    samples = samples_of(context(before, tmp_path).data.calibration(8, 0))
    module = quantize(
        static_twin(before, samples[0]), samples, settings_of(PtqConfig(), before, Device(), False), lambda n: None
    )
    after = quantized(*to_plan(before, module))
    with torch.no_grad():
        for sample in samples[:3]:
            assert torch.equal(module(*sample)[0], outputs_of(after, sample))


def outputs_of(whole: Program, sample: tuple[torch.Tensor, ...]) -> torch.Tensor:
    found = whole(*sample)
    return found if isinstance(found, torch.Tensor) else found[0]


@pytest.mark.parametrize("name", SMALL)
def test_batch_stays_dynamic_and_the_fingerprint_survives(name: str, tmp_path: Path) -> None:
    after = _run(_prepared(name), tmp_path)
    assert [len(outputs(after, batch)[0]) for batch in (1, 5)] == [1, 5]
    loaded = reloaded(after, tmp_path)
    assert loaded.fingerprint == after.fingerprint and loaded.precision == "int8"
    assert torch.equal(outputs(loaded, 3)[0], outputs(after, 3)[0])


def test_length_stays_dynamic(tmp_path: Path) -> None:
    after = _run(_prepared("bert"), tmp_path)
    short = tuple(value[:, :5] for value in after.example_inputs(2))
    assert outputs_of(after, short).shape[0] == 2


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    before = _prepared("mobilenet_v2")
    assert _run(before, tmp_path).fingerprint == _run(before, tmp_path).fingerprint


def test_tensorrt_gets_signed_activations_with_zero_point_0(tmp_path: Path) -> None:
    for name in ("resnet_b", "bert"):
        before = _prepared(name)
        after = _run(before, tmp_path, TensorRTBackend())
        for node in _quantizers(after):
            assert node.args[2:] == (0, -128, 127, torch.int8)
        assert error(before, after) <= 0.2


def test_activations_have_one_scale_everywhere(tmp_path: Path) -> None:
    assert all("per_tensor" in str(n.target) for n in _quantizers(_run(_prepared("mobilenet_v2"), tmp_path)))


def test_options_reach_nncf(tmp_path: Path) -> None:
    before = _prepared("bert")
    plain = _run(before, tmp_path, smooth_quant=False, bias_correction="none")
    assert not any("smooth" in name for name in plain.state)
    assert any("smooth" in name for name in _run(before, tmp_path).state)
    attention = _run(before, tmp_path, attention=True)
    assert len(list(_quantizers(attention))) > len(list(_quantizers(_run(before, tmp_path))))


def test_a_tied_embedding_keeps_its_values(tmp_path: Path) -> None:
    before = _prepared("gpt2")
    after = _run(before, tmp_path)
    tables = [n.args[0] for n in after.graph.nodes if str(n.target) == "aten.embedding.default"]
    originals = [n.args[0] for n in before.graph.nodes if str(n.target) == "aten.embedding.default"]
    for table, original in zip(tables, originals, strict=True):
        assert torch.equal(after.state[str(table.target)], before.state[str(original.target)])


def test_one_sample_is_enough(tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    one = Tensors(before.example_inputs(1))
    made = PostTrainingQuantization().run(before, context(before, tmp_path, train=one))
    verify(made.program)
    assert made.metrics["samples"] == 1


def test_constant_samples_give_finite_results(tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    constant = Tensors((torch.full((4, 3, 32, 32), 1.0),))
    made = PostTrainingQuantization().run(before, context(before, tmp_path, train=constant))
    verify(made.program)


def test_samples_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    with pytest.raises(InputError, match="input 'x' is 0 in all 4 calibration samples"):
        PostTrainingQuantization().run(before, context(before, tmp_path, train=Tensors((torch.zeros(4, 3, 32, 32),))))


def test_a_node_that_is_always_zero_is_reported(tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    relu = next(n for n in before.graph.nodes if "relu" in str(n.target))
    name = str(relu.args[0].args[2].target)
    dead = before.with_state({name: torch.full_like(before.state[name], -1e4)})
    found = PostTrainingQuantization(PtqConfig(samples=2)).run(dead, context(dead, tmp_path))
    assert relu.name in found.metrics["silent"]


@pytest.mark.parametrize("name", ["resnet_b", "bert"])
def test_the_worst_nodes_compute_exactly_until_the_score_holds(name: str, tmp_path: Path) -> None:
    before = _prepared(name)
    ctx = context(before, tmp_path)
    coarse = PtqConfig(samples=8, bits=3)
    whole = PostTrainingQuantization(coarse).run(before, ctx)
    result = PostTrainingQuantization(coarse.model_copy(update={"drop": 1.0})).run(before, ctx)
    exact = result.metrics["exact"]
    assert scoring.accuracy(result.program, ctx.data.dev) >= 99 and result.program.precision == "int8"
    assert 0 < result.metrics["weights"] < whole.metrics["weights"]
    assert set(exact).isdisjoint(e.node for q in result.program.quantization for e in q.edges)
    ranking = result.metrics["sensitivity"]
    assert exact == list(ranking)[: len(exact)] and list(ranking.values()) == sorted(ranking.values(), reverse=True)
    assert error(before, result.program) < error(before, whole.program)


def test_a_score_that_holds_leaves_every_node_quantized(tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    ctx = context(before, tmp_path)
    plain = PostTrainingQuantization(PtqConfig(samples=8)).run(before, ctx)
    found = PostTrainingQuantization(PtqConfig(samples=8, drop=100)).run(before, ctx)
    assert found.program.fingerprint == plain.program.fingerprint and found.metrics["exact"] == []


def test_a_node_that_breaks_a_rule_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"TensorRT refuses the quantizer of \w+ \(read by"):
        _run(_prepared("bert"), tmp_path, TensorRTBackend(), symmetric=False)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_fewer_bits_stay_on_their_grid(bits: int, tmp_path: Path) -> None:
    before = _prepared("mobilenet_v2")
    after = _run(before, tmp_path, bits=bits)
    verify(after)
    weights = [q for q in after.quantization if q.weight]
    assert {(q.low, q.high) for q in weights} == {(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)}
    for q in weights:
        stored = after.state[q.source]
        assert stored.dtype == torch.int8 and int(stored.abs().max()) == q.high


def test_two_bits_are_ternary(tmp_path: Path) -> None:
    before = _prepared("bert")
    found = calibrated(before, context(before, tmp_path), CalibrationConfig(samples=4, bits=2))
    weights = [q for q in found.plan if q.weight]
    assert weights and {(q.low, q.high) for q in weights} == {(-1, 1)}
    for q in weights:
        rows = found.program.state[q.source].movedim(q.axis or 0, 0).flatten(1)
        sizes = rows.abs().mean(1, keepdim=True)
        assert q.scale.reshape(-1, 1).expand_as(sizes).allclose(1.4 * sizes), "the threshold is 0.7 times the mean"
        kept = (rows / q.scale.reshape(-1, 1)).round().clamp(-1, 1) != 0
        assert torch.equal(kept, rows.abs() > 0.7 * sizes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    images = torch.rand(4, 3, 32, 32)
    images[2, 0, 0, 0] = value
    with pytest.raises(InputError, match="sample 2 of the training data holds NaN"):
        PostTrainingQuantization().run(before, context(before, tmp_path, train=Tensors((images,))))


def test_no_samples_are_refused(tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    with pytest.raises(InputError, match="no calibration samples"):
        PostTrainingQuantization().run(before, context(before, tmp_path, train=Tensors((torch.rand(0, 3, 32, 32),))))


def test_quantizing_twice_is_refused(tmp_path: Path) -> None:
    before = replace(_prepared("resnet_b"), precision="int8")
    with pytest.raises(UsageError, match="int8 already"):
        _run(before, tmp_path)


def test_what_nncf_cannot_do_is_an_error_with_its_words(tmp_path: Path) -> None:
    before = _prepared("resnet_b")
    samples = samples_of(context(before, tmp_path).data.calibration(2, 0))
    settings = replace(settings_of(PtqConfig(), before, Device(), False), device="CPU_SPR")
    with pytest.raises(UnsupportedError, match="CPU_SPR"):
        quantize(static_twin(before, samples[0]), samples, settings, lambda n: None)
