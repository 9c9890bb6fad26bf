"""The verdicts of `benchmarks.coverage.npu` on small models."""

import pytest
from torch import nn

pytest.importorskip("openvino")

from benchmarks.coverage import npu
from benchmarks.coverage.byhand import ByHand


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def broken() -> nn.Module:
    raise ValueError("no such layer\nsecond line")


def test_a_model_that_an_npu_takes() -> None:
    assert npu.verdict("mlp", ByHand("mlp", mlp, ((6,),), frozenset())) == npu.Verdict("mlp", True)


def test_reasons_name_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npu.npu, "OPERATORS", npu.npu.OPERATORS - {"Relu"})
    found = npu.verdict("mlp", ByHand("mlp", mlp, ((6,),), frozenset()))
    assert not found.supported and found.failure is None
    assert len(found.reasons) == 1 and "knows no Relu" in found.reasons[0]


def test_a_model_that_fails_does_not_raise() -> None:
    found = npu.verdict("broken", ByHand("broken", broken, ((6,),), frozenset()))
    assert not found.supported and found.failure == "ValueError: no such layer"
