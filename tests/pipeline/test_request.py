"""What a build is asked for: refused with the value and the remedy, before any work."""

from pathlib import Path

import pytest
import torch

from compactor.data import DataSource
from compactor.errors import InputError
from compactor.pipeline import request
from tests.pipeline.support import Samples, data, program


def test_good_request() -> None:
    teacher = request.open_teacher(program())
    request.check_data(teacher, data())


def test_weights_that_are_not_finite() -> None:
    teacher = program()
    name = next(iter(sorted(teacher.trainable)))
    broken = teacher.with_state({name: teacher.state[name] / 0})
    with pytest.raises(InputError, match=f"tensor '{name}' holds .* not finite"):
        request.open_teacher(broken)


def test_module_without_inputs() -> None:
    with pytest.raises(InputError, match="example inputs"):
        request.open_teacher(torch.nn.Linear(2, 2))


def test_wrong_input_shape() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3, 9, 9\)"):
        request.check_data(program(), data(shape=(3, 9, 9)))


def test_labels_beyond_the_classes() -> None:
    with pytest.raises(InputError, match=r"train split: .*label 6.* 4 classes"):
        request.check_data(program(), data(classes=7))


def test_negative_labels() -> None:
    split = Samples(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, -1, 2]))
    with pytest.raises(InputError, match=r"test split: .*label -1"):
        request.check_data(program(), DataSource(data().train, data().dev, split))


def test_empty_split() -> None:
    split = Samples(torch.rand(0, 3, 8, 8))
    with pytest.raises(InputError, match="the dev split is empty"):
        request.check_data(program(), DataSource(data().train, split, None))


def test_inputs_that_break_the_teacher() -> None:
    split = Samples(torch.full((4, 3, 8, 8), float("inf")))
    with pytest.raises(InputError, match="outputs for the train split are not finite"):
        request.check_data(program(), DataSource(split, split, None))


@pytest.mark.parametrize(
    ("spec", "callable_"),
    [("mine:data", True), ("my.data:make", True), ("folder", False), ("C:/x", False), ("a:b:c", False)],
)
def test_what_counts_as_a_callable(spec: str, callable_: bool, tmp_path: Path) -> None:
    assert request.is_callable(spec) is callable_
