"""Quantizers as data: taken out of graphs, put back, printed, edited, checked against a runtime's rules."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.backends.tensorrt.backend import TensorRTBackend
from compactor.errors import UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.ir.quantized import is_dequantize
from compactor.ir.quantizing import leaves, put, quantized, split
from compactor.ir.quantplan import Edge, Quantizer, QuantPlan, QuantRules
from compactor.ir.verify import verify
from tests.backends.models import MODELS, encoder, inputs_for, residual
from tests.backends.models import quantized as by_hand
from tests.models import program
from tests.passes.support import reloaded

RULES = QuantRules("toy")


def same(first: Program, second: Program) -> bool:
    inputs = inputs_for(first, 3, seed=4)
    found = [made(*inputs) for made in (first, second)]
    pairs = zip(*([f] if isinstance(f, torch.Tensor) else f for f in found), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_is_taken_out_goes_back_in(name: str, fold: bool, tmp_path: Path) -> None:
    before = by_hand(MODELS[name](), fold=fold)
    exact, plan = split(before)
    assert exact.precision == "float32" and not any(map(is_dequantize, exact.graph.nodes))
    after = quantized(exact, plan)
    verify(after)
    assert after.precision == "int8" and same(before, after)
    assert str(after.quantization) == str(plan) and len(plan)
    loaded = reloaded(after, tmp_path)
    assert loaded.fingerprint == after.fingerprint == quantized(*split(loaded)).fingerprint
    assert quantized(exact, QuantPlan.from_json(plan.to_json())).fingerprint == after.fingerprint


def test_weights_quantized_in_the_graph_keep_their_digits() -> None:
    whole = residual()
    exact, _ = split(by_hand(whole, fold=False))
    assert torch.equal(exact.state["point.weight"], whole.state["point.weight"])


def test_a_float_program_has_no_quantizers() -> None:
    assert not len(residual().quantization) and split(residual())[0].fingerprint == residual().fingerprint
    assert quantized(residual(), QuantPlan()).fingerprint == residual().fingerprint


def test_text_names_bits_scheme_scales_and_readers() -> None:
    lines = str(by_hand(residual()).quantization).splitlines()
    weight = next(line for line in lines if line.startswith("weight head.weight"))
    assert "8 bits symmetric int8 [-127, 127], axis 0, 5 scales" in weight and "-> linear:1" in weight
    assert lines[0].startswith("activation image: 8 bits symmetric int8 [-128, 127], scale")


def test_a_node_taken_out_of_the_plan_computes_exactly() -> None:
    exact, plan = split(by_hand(residual(), fold=False))
    less = plan.without(["linear", "conv2d_*"])
    assert {e.node for q in less for e in q.edges} == {"conv2d"}
    assert not len(plan.without(["*"])) and len(less) == 2
    left = quantized(exact, less)
    assert left.state["head.weight"].dtype == torch.float32
    assert sum(map(is_dequantize, left.graph.nodes)) == 2


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 8), st.floats(1e-4, 0.1), st.integers(0, 3))
def test_stored_weights_are_the_rounded_ones(bits: int, scale: float, shift: int) -> None:
    exact, plan = split(by_hand(residual(), fold=False))
    place = next(i for i, q in enumerate(plan) if q.source == "point.weight")
    most = 2 ** (bits - 1) - 1
    scales = torch.full((32,), scale).roll(shift)
    edited = replace(plan.quantizers[place], scale=scales, low=-most, high=most)
    made = quantized(exact, plan.replaced({place: edited}))
    stored = made.state["point.weight"]
    wanted = (exact.state["point.weight"] * (1 / scales.view(-1, 1, 1, 1))).round().clamp(-most, most)
    assert stored.dtype == torch.int8 and torch.equal(stored.float(), wanted)
    assert next(q for q in made.quantization if q.source == "point.weight").bits == bits


def test_a_tensor_with_exact_readers_is_stored_twice() -> None:
    exact = program("tied_lm")
    table, reader = _tied(exact)
    place = next(i for i, n in enumerate(leaves(reader)) if str(n.target) == table)
    scales = exact.state[table].abs().amax(1) / 127
    zero = torch.zeros(len(scales), dtype=torch.int64)
    plan = QuantPlan((Quantizer(table, True, (Edge(reader.name, place, "linear"),), scales, zero, -127, 127, axis=0),))
    made = quantized(exact, plan)
    assert torch.equal(made.state[table], exact.state[table]) and made.state[f"{table}_int8"].dtype == torch.int8
    verify(made)


def _tied(whole: Program) -> tuple[str, torch.fx.Node]:
    """A tensor that an embedding and a linear layer read, and the latter."""
    embedded = {str(n.args[0].target) for n in whole.graph.nodes if "embedding" in str(n.target)}
    for node in whole.graph.nodes:
        for leaf in leaves(node):
            if "linear" in str(node.target) and str(leaf.target) in embedded:
                return str(leaf.target), node
    raise AssertionError("not tied")


def test_leaves_are_replaced_where_they_stand() -> None:
    graph = torch.fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    node = graph.call_function(torch.cat, ([x, y, x],), {"dim": 1})
    put(node, 2, y)
    assert leaves(node) == [x, y, y] and node.kwargs == {"dim": 1}


def test_a_plan_of_another_model_is_refused() -> None:
    _, plan = split(by_hand(residual()))
    with pytest.raises(UsageError, match="the plan quantizes"):
        quantized(encoder(), plan)


@pytest.mark.parametrize("backend", [OnnxBackend(), OpenVINOBackend(), TensorRTBackend()])
def test_what_every_runtime_takes(backend: OnnxBackend) -> None:
    for make in MODELS.values():
        by_hand(make()).quantization.check(backend.rules)


def test_broken_rules_name_the_node() -> None:
    plan = by_hand(residual()).quantization
    first, weight = plan.quantizers[:2]
    assert not first.weight and weight.weight
    unsigned = replace(first, low=0, high=255, dtype=torch.uint8)
    cases = {
        "stores uint8": (TensorRTBackend.rules, unsigned),
        "zero point 3, not 0": (TensorRTBackend.rules, replace(first, zero_point=torch.tensor(3))),
        "a scale of 0": (RULES, replace(first, scale=torch.tensor(0.0))),
        "a scale of nan": (RULES, replace(first, scale=torch.tensor(float("nan")))),
        "asymmetric weight": (RULES, replace(weight, zero_point=weight.zero_point + 1)),
        "on axis 1": (RULES, replace(weight, axis=1)),
        "bias of conv2d": (RULES, replace(weight, edges=(Edge("conv2d", 2, "conv2d"),))),
        "16 scales on an activation": (RULES, replace(weight, weight=False)),
    }
    for message, (rules, broken) in cases.items():
        with pytest.raises(UnsupportedError, match=message) as caught:
            QuantPlan((broken,)).check(rules)
        assert broken.source in str(caught.value) and "conv2d" in str(caught.value)
    QuantPlan((unsigned,)).check(OpenVINOBackend.rules)
