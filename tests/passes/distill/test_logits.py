"""`distill.logits` on a small teacher: with labels, without, mirrored or not, resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compactor import scoring
from compactor.budget import Budget
from compactor.data import DataSource
from compactor.ir.program import Program
from compactor.passes.distill.logits import LogitsConfig, LogitsDistillation
from compactor.pipeline.context import PassContext
from compactor.training.effort import EPOCHS, MACS, affordable
from tests.training.samples import blobs, network, program, source, trained


def context(teacher: Program, data: DataSource, folder: Path, **options: Any) -> PassContext:
    """A context for passes that need neither target nor backend."""
    nothing: Any = None
    return PassContext(teacher, nothing, nothing, data, Budget(), folder, **options)


@pytest.fixture(scope="module")
def teacher() -> Program:
    return program(trained(network(8), blobs(96, 0)))


def distil(student: Program, ctx: PassContext, **options: Any):
    return LogitsDistillation(LogitsConfig(**{"epochs": 12, **options})).run(student, ctx)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_student_learns_from_the_teacher(teacher: Program, tmp_path: Path, labelled: bool) -> None:
    data = source(labelled)
    result = distil(program(network(4, seed=3)), context(teacher, data, tmp_path))
    assert result.modified and result.metrics["after"] > result.metrics["before"]
    assert result.metrics["metric"] == ("dev accuracy" if labelled else "dev agreement")
    assert scoring.agreement(result.program, teacher, data.test) > 85


def test_labels_may_count(teacher: Program, tmp_path: Path) -> None:
    result = distil(program(network(4, seed=3)), context(teacher, source(), tmp_path), label_weight=0.5)
    assert result.metrics["labels"] and result.metrics["after"] > 85


def test_the_given_program_stays_as_it_was(teacher: Program, tmp_path: Path) -> None:
    student = program(network(4, seed=3))
    before = student.fingerprint
    values = {k: v.clone() for k, v in student.state.items()}
    distil(student, context(teacher, source(), tmp_path), epochs=1)
    assert student.fingerprint == before and all(torch.equal(values[k], v) for k, v in student.state.items())


def test_the_teacher_itself_is_not_trained(teacher: Program, tmp_path: Path) -> None:
    result = distil(teacher, context(teacher, source(), tmp_path))
    assert result.program is teacher and not result.modified


def test_the_same_seed_gives_the_same_fingerprint(teacher: Program, tmp_path: Path) -> None:
    found = []
    for name in "ab":
        (tmp_path / name).mkdir()
        found.append(distil(program(network(4)), context(teacher, source(), tmp_path / name, seed=5), epochs=2))
    assert found[0].program.fingerprint == found[1].program.fingerprint
    assert found[0].metrics == found[1].metrics


def test_the_next_student_does_not_ask_the_teacher_again(teacher: Program, tmp_path: Path) -> None:
    class Told:
        asked = False

        def update(self, done: int, total: int, text: str = "") -> None:
            self.asked = self.asked or "teacher outputs" in text

        def note(self, text: str) -> None:
            """Nothing."""

    asked = []
    for name, width in (("a", 4), ("b", 2)):
        (tmp_path / name).mkdir()
        told = Told()
        ctx = context(teacher, source(), tmp_path / name, progress=told, outputs=tmp_path)
        assert distil(program(network(width)), ctx, epochs=1).metrics["steps"]
        asked.append(told.asked)
    assert asked == [True, False]


def test_interrupted_and_run_again(teacher: Program, tmp_path: Path) -> None:
    class Stop:
        def __init__(self, at: int) -> None:
            self.at = at

        def update(self, done: int, total: int, text: str = "") -> None:
            if "epoch" in text and done == self.at:
                raise KeyboardInterrupt

        def note(self, text: str) -> None: ...

    for name in "ab":
        (tmp_path / name).mkdir()
    whole = distil(program(network(4)), context(teacher, source(), tmp_path / "a"), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        distil(program(network(4)), context(teacher, source(), tmp_path / "b", progress=Stop(20)), epochs=3)
    again = distil(program(network(4)), context(teacher, source(), tmp_path / "b"), epochs=3)
    assert again.program.fingerprint == whole.program.fingerprint


def test_mirroring_follows_the_teacher(tmp_path: Path) -> None:
    """Blobs on a diagonal change class when mirrored... except the middle one; their column sums do not."""
    data = source()
    lopsided = program(trained(network(8), blobs(96, 0)))
    result = distil(program(network(4)), context(lopsided, data, tmp_path), epochs=1)
    images = data.dev.take(torch.arange(48)).inputs[0]
    same = float((lopsided(images).argmax(-1) == lopsided(images.flip(-1)).argmax(-1)).float().mean())
    assert result.metrics["flip"] is (same >= 0.85)


def test_synthetic_images_are_not_augmented(teacher: Program, tmp_path: Path) -> None:
    data = replace(source(labelled=False), synthetic=True)
    assert distil(program(network(4)), context(teacher, data, tmp_path), epochs=1).metrics["views"] == 1


def test_effort_decides_the_epochs(teacher: Program, tmp_path: Path) -> None:
    found = []
    for effort in ("quick", "balanced"):
        (tmp_path / effort).mkdir()
        ctx = context(teacher, source(), tmp_path / effort, effort=effort)
        found.append(LogitsDistillation().run(program(network(2)), ctx).metrics["epochs"])
    assert found == [20, 80]


def test_a_share_of_the_effort_pays_for_fewer_epochs() -> None:
    low, _ = EPOCHS["max"]
    epoch = MACS["max"] / 40
    found = [affordable("max", epoch, before, share=share) for before, share in ((0, 1), (0, 0.25), (4 * epoch, 0.25))]
    assert found == [40, 10, 6]
    assert affordable("max", epoch, share=1e-3) == low
    assert affordable("max", 1.0, share=0.25) == EPOCHS["max"][1] // 4


def test_a_student_that_training_does_not_improve_is_kept(teacher: Program, tmp_path: Path) -> None:
    student = teacher.with_state({k: v + 0.0 for k, v in teacher.state.items()})
    student = student.with_state({"8.bias": student.state["8.bias"] + 1e-4}) if "8.bias" in student.state else student
    result = distil(student, context(teacher, source(), tmp_path), epochs=1, lr=1e-9)
    assert result.metrics["after"] >= result.metrics["before"]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("options", [{"loss": "dkd", "beta": 2.0}, {"relation": 1.0}, {"variants": 2}])
def test_options_train_with_labels_and_without(
    teacher: Program, tmp_path: Path, labelled: bool, options: dict[str, Any]
) -> None:
    result = distil(program(network(4, seed=3)), context(teacher, source(labelled), tmp_path), **options)
    assert result.modified and result.metrics["after"] > result.metrics["before"]
    assert result.metrics["samples"] == (288 if "variants" in options else 96)


def test_variants_come_with_effort_max(teacher: Program, tmp_path: Path) -> None:
    found = []
    for effort in ("balanced", "max"):
        (tmp_path / effort).mkdir()
        ctx = context(teacher, source(), tmp_path / effort, effort=effort)
        found.append(distil(program(network(2)), ctx, epochs=1).metrics["samples"])
    assert found == [96, 384]


def test_made_up_images_have_no_variants(teacher: Program, tmp_path: Path) -> None:
    data = replace(source(labelled=False), synthetic=True)
    assert distil(program(network(4)), context(teacher, data, tmp_path), epochs=1, variants=3).metrics["samples"] == 96
