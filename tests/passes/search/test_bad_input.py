"""Searches on data and teachers that nothing can be made of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from compactor.data import Batch
from compactor.errors import InputError, UsageError
from compactor.ir.program import Program
from compactor.passes.search.autodistil import AutoDistilConfig, AutoDistilSearch
from compactor.passes.search.proxies import Setting
from compactor.passes.search.uniform import UniformSearch
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassResult
from tests.passes.search.test_diswot import around, search, teacher
from tests.passes.support import Tensors, export

Search = Callable[[Program, PassContext], PassResult]
SEARCHES: dict[str, Search] = {
    "diswot": search,
    "uniform": lambda model, ctx: UniformSearch().run(model, ctx),
    "autodistil": lambda model, ctx: AutoDistilSearch(AutoDistilConfig.model_validate({"epochs": 1})).run(model, ctx),
}


def with_train(ctx: PassContext, change: Callable[[Tensors], Tensors]) -> PassContext:
    """The context with other training data."""
    assert isinstance(ctx.data.train, Tensors)
    return replace(ctx, data=replace(ctx.data, train=change(ctx.data.train)))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_sample_with_nan_is_named(name: str, tmp_path: Path) -> None:
    def spoilt(split: Tensors) -> Tensors:
        images = split.inputs[0].clone()
        images[3:, 0, 5, 5] = torch.nan
        return Tensors((images,), split.labels)

    model = teacher()
    with pytest.raises(InputError, match="NaN or infinite"):
        SEARCHES[name](model, with_train(around(model, tmp_path), spoilt))


def test_one_sample_cannot_be_compared(tmp_path: Path) -> None:
    model = teacher()
    alone = with_train(around(model, tmp_path), lambda split: Tensors((split.inputs[0][:1],)))
    with pytest.raises(InputError, match="1 training samples do not fill 1 batches"):
        search(model, alone)


@pytest.mark.parametrize("score", ["default", "diswot", "semantic"])
def test_labels_are_optional(score: str, tmp_path: Path) -> None:
    model = teacher()
    found = search(model, with_train(around(model, tmp_path), lambda s: Tensors(s.inputs)), score=score).metrics
    assert found["latency_ms"] <= found["goal_ms"]


def test_features_that_overflow_are_said() -> None:
    model = teacher()
    huge = Batch((torch.full((4, 3, 32, 32), torch.inf),))
    with pytest.raises(InputError, match="features hold NaN or infinite"):
        Setting.of(model, [huge], [0])


@pytest.mark.parametrize("name", SEARCHES)
def test_a_teacher_with_nothing_to_prune(name: str, tmp_path: Path) -> None:
    model = export(nn.Linear(6, 3), (2, 6))
    with pytest.raises(UsageError, match="the closest"):
        SEARCHES[name](model, around(model, tmp_path / "a", latency="1us"))
    result = SEARCHES[name](model, around(model, tmp_path / "b", latency="10ms"))
    assert result.metrics["subnet"]["kept"] == {} and result.metrics["subnet"]["dropped"] == []
