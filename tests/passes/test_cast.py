"""`quantize.cast`: everything in 16 bits, float32 at the edges, and nothing overflows."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from compactor.errors import UsageError
from compactor.ir.program import Program
from compactor.ir.verify import verify
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.cast import Cast, CastConfig, cast_program
from tests.models import program
from tests.passes.support import context, error, outputs, reloaded, traced

_TOLERANCE = {"bfloat16": 3e-2, "float16": 5e-3}


def _prepared(whole: Program) -> Program:
    return folded_program(canonical(whole)[0])[0]


@pytest.mark.parametrize("precision", list(_TOLERANCE))
def test_every_architecture_stays_near(architecture_program: Program, precision: str) -> None:
    before = _prepared(architecture_program)
    result, _ = cast_program(before, precision)
    verify(result)
    assert error(before, result) <= _TOLERANCE[precision]
    assert all(value.dtype == torch.float32 for value in outputs(result, 2))
    dtype = getattr(torch, precision)
    assert all(t.dtype == dtype for t in result.state.values() if t.is_floating_point())
    assert result.precision == precision and result.trainable == before.trainable


def test_nothing_is_computed_in_float32(architecture_program: Program) -> None:
    result, _ = cast_program(_prepared(architecture_program), "bfloat16")
    results = set(next(n for n in reversed(result.graph.nodes) if n.op == "output").args[0])
    wide = [
        node.name
        for node, value in result.values.items()
        if node.op == "call_function" and isinstance(value, Tensor) and value.dtype == torch.float32
    ]
    allowed = {node.name for node in results}
    casts = {n.args[0].name for n in result.graph.nodes if str(n.target) == "aten.to.dtype"}
    assert set(wide) <= allowed | casts


@pytest.mark.parametrize("name", ["mobilenet_v3", "packed_chunk", "bert", "gpt2"])
def test_reloading_keeps_the_fingerprint(name: str, tmp_path: Path) -> None:
    result, _ = cast_program(_prepared(program(name)), "bfloat16")
    assert reloaded(result, tmp_path).fingerprint == result.fingerprint


def test_values_beyond_the_type_become_its_largest(tmp_path: Path) -> None:
    whole = traced(lambda x: x + torch.tensor([1e6, -1e6, 1.0]) - 1e5, 2, 3)
    result = Cast(CastConfig(dtype="float16")).run(canonical(whole)[0], context(whole, tmp_path))
    assert result.metrics == {"dtype": "float16", "clamped": 2}
    assert all(torch.isfinite(t).all() for t in result.program.state.values())


def test_a_program_is_cast_once(tmp_path: Path) -> None:
    whole = _prepared(program("groupnorm"))
    result = Cast().run(whole, context(whole, tmp_path)).program
    with pytest.raises(UsageError, match="bfloat16 already"):
        Cast().run(result, context(whole, tmp_path))
