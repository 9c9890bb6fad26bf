"""Token-wise logits: classes drawn for every token, padding that does not count."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compactor import scoring
from compactor.budget import Budget
from compactor.data import DataSource, Split
from compactor.ir import padding
from compactor.ir.program import Program
from compactor.passes.distill.student import scored
from compactor.pipeline.context import PassContext
from compactor.training import Micro, losses
from compactor.training.cache import Teacher
from compactor.training.distillation import Decoupled, Distillation, Draws, TopK
from tests.models import program as architecture
from tests.passes.support import Tensors
from tests.training.samples import program


def linear(seed: int = 0) -> Program:
    """Seven logits for each token of (N, 6, 5)."""
    torch.manual_seed(seed)
    return program(torch.nn.Linear(5, 7), 6, 5)


def numbers() -> Tensors:
    """32 samples of six tokens of five numbers, without labels."""
    return Tensors((torch.randn(32, 6, 5, generator=torch.Generator().manual_seed(0)),))


def language() -> Program:
    """A language model whose inputs have the names of its data."""
    whole = architecture("llama")
    names = ("input_ids", "attention_mask")
    return whole.evolve(inputs=tuple(replace(s, name=n) for s, n in zip(whole.inputs, names, strict=True)))


MASK = (torch.arange(12) < torch.arange(5, 13)[:, None]).long()


def texts(pad: int) -> Tensors:
    """Eight sequences of 5 to 12 tokens, with this token behind them."""
    ids = torch.randint(3, 60, MASK.shape, generator=torch.Generator().manual_seed(0))
    return Tensors((torch.where(MASK > 0, ids, pad), MASK))


def changed(whole: Program) -> Program:
    """The Program with larger weights."""
    return whole.with_state({name: 1.2 * value for name, value in whole.state.items() if name in whole.trainable})


def loss(objective: Distillation, student: Program, split: Split) -> float:
    micro = Micro(torch.arange(len(split)), 0, 0, 1, 0)
    return float(objective.loss(student.module(), objective.batch(micro), micro).detach())


def test_classes_are_drawn_for_every_token_and_kept(tmp_path: Path) -> None:
    split, teacher, student = numbers(), Teacher(linear()), linear(1)
    drawn = loss(Distillation(teacher, split, tmp_path, draws=Draws(4000, 4.0)), student, split)
    kept = torch.load(next(tmp_path.glob("*.outputs")), weights_only=True)["outputs"]
    assert kept.shape == (32, 6, 4000) and kept.dtype == torch.int32
    full = loss(Distillation(teacher, split, tmp_path / "full", keep=False), student, split)
    assert drawn == pytest.approx(full, rel=0.1)


@pytest.mark.parametrize("term", [None, TopK(2), Decoupled()])
def test_classes_are_drawn_where_nothing_is_kept(tmp_path: Path, term: Any) -> None:
    split, teacher, student = numbers(), Teacher(linear()), linear(1)
    kept, fresh, whole = (
        loss(Distillation(teacher, split, tmp_path, term=term, draws=draws, keep=keep), student, split)
        for draws, keep in ((Draws(3, 4.0), True), (Draws(3, 4.0), False), (None, False))
    )
    assert kept == pytest.approx(fresh, rel=1e-5) and fresh != pytest.approx(whole, rel=1e-3)


def test_outputs_of_free_length_are_not_kept(tmp_path: Path) -> None:
    split, teacher = texts(0), language()
    loss(Distillation(Teacher(teacher), split, tmp_path, draws=Draws(3, 4.0)), changed(teacher), split)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("term", [None, TopK(3), Decoupled()])
def test_the_loss_leaves_padding_out(tmp_path: Path, term: Any) -> None:
    whole = language()
    teacher, student, mask = Teacher(whole), changed(whole), padding.mask_input(whole)
    assert mask == 1
    first, second = (
        loss(Distillation(teacher, split, tmp_path, term=term, mask=mask), student, split)
        for split in (texts(0), texts(7))
    )
    inputs, seen = texts(0).inputs, MASK > 0
    found, goal = scoring.logits(student, inputs)[seen], teacher(inputs)[seen]
    micro = Micro(torch.arange(8), 0, 0, 1, 0)
    wanted = losses.soft(found, goal, 4.0) if term is None else term.loss(found, goal, None, 4.0, micro)
    assert first == pytest.approx(float(wanted), rel=1e-3) and first == pytest.approx(second, rel=1e-4)


def test_agreement_leaves_padding_out(tmp_path: Path) -> None:
    nothing: Any = None
    whole, split = language(), texts(0)
    student = changed(changed(changed(whole)))
    same = (student(*split.inputs).argmax(-1) == whole(*split.inputs).argmax(-1))[MASK > 0]
    wanted = 100 * float(same.float().mean())
    assert 0 < wanted < 100
    assert scoring.agreement(student, whole, split) == pytest.approx(wanted)
    assert scoring.agreement(lambda inputs: student(*inputs), whole, split) == pytest.approx(wanted)
    ctx = PassContext(whole, nothing, nothing, DataSource(split, split, None), Budget(), tmp_path)
    exact = Teacher(whole)
    exact.reduced = False
    metric, score = scored(lambda state: student, exact, ctx)
    assert metric == "dev agreement" and score({}) == pytest.approx(wanted, abs=3)


def test_logits_of_whole_samples_have_no_padding() -> None:
    assert padding.tokens(torch.zeros(8, 12), texts(0).inputs, 1) is ...
    assert padding.tokens(torch.zeros(8, 12, 3), texts(0).inputs, None) is ...
    assert padding.mask_input(linear()) is None
