"""What is predicted of a Program: every kernel in its own precision, and conversions where precisions meet."""

from pathlib import Path

import pytest

from compactor.ir.program import Program
from compactor.ir.quantizing import quantized, split
from compactor.ir.workload import Flow, workload
from compactor.target import predicted, work
from tests.backends.models import encoder, residual
from tests.backends.models import quantized as by_hand
from tests.passes.support import reloaded
from tests.pipeline.support import Device


def test_one_precision_is_said_once() -> None:
    whole = residual()
    assert workload(whole) == (whole.kernels(), "float32")
    assert workload(by_hand(whole)) == (by_hand(whole).kernels(), "int8")


def without(*nodes: str, between: str = "bfloat16") -> Program:
    exact, plan = split(by_hand(residual()))
    return quantized(exact, plan.without(nodes)).evolve(between=between)


def test_products_without_quantizers_compute_in_between() -> None:
    convolutions = [k.node for k in residual().kernels() if k.kind == "conv"]
    made = without(convolutions[0])
    kernels, precisions = workload(made)
    found = {k.node: p for k, p in zip(kernels, precisions, strict=True) if k.macs}
    assert found.pop(convolutions[0]) == "bfloat16" and set(found.values()) == {"int8"}
    assert len(kernels) == len(made.kernels()) + 1, "its result is rounded for the next"
    assert kernels[-1].kind == "pointwise" and kernels[-1].outputs == 16 * 16 * 16 and precisions[-1] == "bfloat16"


def test_nothing_is_converted_behind_the_last_float_layer() -> None:
    kernels, precisions = workload(without("linear"))
    assert len(kernels) == len(residual().kernels()) and precisions.count("bfloat16") == 1


def test_values_know_who_makes_and_reads_them() -> None:
    flow = Flow.of(*split(by_hand(encoder())))
    inner = [r for r in flow.rounded if len(r.readers) == 3]
    assert len(inner) == 1, "query, key and value read the same normalised tokens"
    assert {flow.kernels[i].kind for i in inner[0].readers} == {"linear"}
    assert inner[0].maker is not None and flow.kernels[inner[0].maker].kind == "norm"
    assert inner[0].elements == 12 * 32


def test_targets_get_precisions_that_they_have() -> None:
    device = Device(precisions=("float16", "int8"))
    assert work(device, residual())[1] == "float16"  # type: ignore[arg-type]
    assert set(work(device, without("linear", between="float32"))[1]) == {"float16", "int8"}  # type: ignore[arg-type]
    assert predicted(device, residual()).p50 == device.predict(residual().kernels(), "float16").p50  # type: ignore[arg-type]


def test_between_is_part_of_a_program(tmp_path: Path) -> None:
    made, plain = without("linear"), without("linear", between="float32")
    assert made.arithmetic == "int8+bfloat16" and plain.arithmetic == "int8" and residual().arithmetic == "float32"
    assert made.fingerprint != plain.fingerprint
    loaded = reloaded(made, tmp_path)
    assert loaded.between == "bfloat16" and loaded.fingerprint == made.fingerprint
    assert quantized(*split(loaded)).fingerprint == made.fingerprint


@pytest.mark.parametrize("between", ["float32", "bfloat16"])
def test_int8_throughout_is_predicted_as_before(between: str) -> None:
    made = by_hand(residual()).evolve(between=between)
    assert workload(made) == (made.kernels(), "int8")
