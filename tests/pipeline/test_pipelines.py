"""The named pipelines: known passes, in an order that their own declarations allow."""

import pytest

from compactor.errors import UsageError
from compactor.pipeline.pipelines import EFFORTS, FAMILIES, family, named
from compactor.pipeline.plan import check_order, check_properties
from compactor.pipeline.text import Pipeline
from tests.pipeline.support import Device


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_pipeline_is_in_order(kind: str, effort: str) -> None:
    pipeline = Pipeline.parse(FAMILIES[kind][effort])
    check_order(pipeline.passes)
    check_properties(pipeline.passes, frozenset())
    assert str(pipeline) == FAMILIES[kind][effort]


def test_families() -> None:
    assert family(Device(backend="tensorrt")) == "tensorrt"
    assert family(Device(name="intel-npu-4000", backend="openvino")) == "npu"
    assert family(Device(name="host-cpu", backend="openvino")) == "cpu"


def test_unknown_effort() -> None:
    with pytest.raises(UsageError, match=r"unknown effort 'quik'\n.*quick"):
        named("quik", Device())
