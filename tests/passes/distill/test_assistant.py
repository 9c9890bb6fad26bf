"""`distill.assistant`: sizes in between, and a chain that trains."""

from pathlib import Path

import pytest

from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.passes.distill.assistant import AssistantConfig, AssistantDistillation, between, extent
from tests.passes.distill.support import context, encoder, sequences, sliced


@pytest.mark.parametrize("count", [1, 2, 3])
def test_sizes_fall_from_teacher_to_student(count: int) -> None:
    teacher, student = encoder(), sliced(encoder(), keep=0.25, drop=2)
    found = [slice_program(teacher, s).cost().macs for s in between(teacher, student, count)]
    assert len(found) == count
    sizes = [teacher.cost().macs, *found, student.cost().macs]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == count + 2


def test_one_assistant_for_every_tenfold() -> None:
    assert len(between(encoder(), sliced(encoder(), keep=0.5, drop=0), None)) == 1
    assert len(between(encoder(), sliced(encoder(), keep=0.1, drop=3), None)) >= 2


def test_the_extent_of_a_student_is_read_from_its_shapes() -> None:
    teacher = encoder()
    space = space_of(teacher)
    student = sliced(teacher, keep=0.5, drop=1)
    sizes, dropped = extent(space, student)
    assert dropped == [space.blocks[-1].name]
    assert all(sizes[g.name] == pytest.approx(max(1, round(g.size / 2)), abs=0.6) for g in space.groups)


def test_a_chain_trains(tmp_path: Path) -> None:
    teacher, student = encoder(), sliced(encoder(), keep=0.25, drop=2)
    config = AssistantConfig(epochs=3, lr=2e-3, ema=0.0, assistants=2, variants=0)
    found = []
    for name in "ab":
        ctx = context(teacher, sequences(teacher, labelled=False, samples=128), tmp_path / name)
        found.append(AssistantDistillation(config).run(student, ctx))
    metrics = found[0].metrics
    assert found[0].program.fingerprint == found[1].program.fingerprint and metrics == found[1].metrics
    assert metrics["after"] >= metrics["before"] and metrics["metric"] == "dev agreement"
    macs = [a["macs"] for a in metrics["assistants"]]
    assert teacher.cost().macs > macs[0] > macs[1] > student.cost().macs


def test_students_that_are_large_enough_need_none(tmp_path: Path) -> None:
    teacher = encoder()
    ctx = context(teacher, sequences(teacher, labelled=False), tmp_path)
    student = sliced(teacher, keep=0.5, drop=0)
    result = AssistantDistillation(AssistantConfig(ratio=10.0)).run(student, ctx)
    assert result.program is student and "need no assistant" in result.metrics["skipped"]
