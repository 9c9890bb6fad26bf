"""Accuracy and agreement, of Programs and of anything that runs."""

from dataclasses import replace

import pytest
import torch

from compactor import scoring
from compactor.errors import InputError, UnsupportedError
from compactor.passes.quantize.cast import cast_program
from tests.training.samples import blobs, network, program, source, trained


def oracle(inputs):
    """Always class 0."""
    return (torch.tensor([[1.0, 0.0, 0.0]]).expand(len(inputs[0]), 3),)


def test_accuracy_counts_hits() -> None:
    split = blobs(50, 0)
    share = 100 * float((split.labels == 0).float().mean())
    assert scoring.accuracy(oracle, split, batch=7) == pytest.approx(share)


def test_agreement_of_programs_and_sessions() -> None:
    split = blobs(50, 0)
    made = program(network(4))
    assert scoring.agreement(made, made, split) == 100.0
    assert scoring.agreement(made, lambda inputs: (made(*inputs),), split, batch=16) == 100.0
    zeros = 100 * float((made(split.images).argmax(-1) == 0).float().mean())
    assert scoring.agreement(oracle, made, split) == pytest.approx(zeros)


def test_float16_is_scored_in_float32_arithmetic_on_its_own_weights() -> None:
    split, whole = blobs(50, 0), program(network(4))
    narrow = cast_program(whole, "float16")[0]
    found, exact, rough = (p(split.images) for p in (scoring.scorable(narrow), whole, narrow))
    assert found.dtype == torch.float32 and not torch.equal(found, exact), "its weights are rounded"
    torch.testing.assert_close(found, rough, rtol=1e-2, atol=1e-2)
    assert scoring.scorable(whole) is whole


def test_the_score_uses_test_else_dev_labels_else_the_teacher() -> None:
    teacher = program(trained(network(8), blobs(96, 0)))
    student = program(network(2))
    found = scoring.score(teacher, student, source())
    assert (found.name, found.split) == ("accuracy", "test") and found.teacher > 90 > found.student
    assert found.drop == found.teacher - found.student
    assert scoring.score(teacher, student, replace(source(), test=None)).split == "dev"
    unlabelled = scoring.score(teacher, teacher, source(labelled=False))
    assert (unlabelled.name, unlabelled.teacher, unlabelled.student) == ("agreement", 100.0, 100.0)
    assert scoring.score(teacher, student, replace(source(), synthetic=True)).name == "unverified"


def test_labels_beyond_the_classes_are_refused() -> None:
    split = blobs(10, 0)
    split.labels[3] = 7
    with pytest.raises(InputError, match=r"label 7.*3 classes(.|\n)*0 to 2"):
        scoring.accuracy(oracle, split)


def test_no_labels_no_samples_no_classes() -> None:
    with pytest.raises(InputError, match="without labels"):
        scoring.accuracy(oracle, blobs(4, 0, labelled=False))
    with pytest.raises(InputError, match="empty"):
        scoring.accuracy(oracle, blobs(0, 0))
    with pytest.raises(UnsupportedError, match=r"\(4, 1\)"):
        scoring.agreement(lambda i: torch.zeros(len(i[0]), 1), oracle, blobs(4, 0))
