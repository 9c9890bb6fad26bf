"""The manager: order, records, reuse, resume, and what it does not let pass."""

from pathlib import Path

import pytest
import torch

from compactor.errors import InternalError
from compactor.pipeline.instruments import Dumps, PeakMemory, Timing
from compactor.pipeline.manager import PassManager
from compactor.pipeline.store import Store
from tests.pipeline.support import Broken, Crash, ExactScale, Scale, context, data, pipeline, program


@pytest.fixture(autouse=True)
def _fresh_runs() -> None:
    Scale.runs.clear()


def test_passes_run_in_order_and_are_recorded(tmp_path: Path) -> None:
    teacher = program()
    steps = pipeline(Scale(), Scale(Scale.Config(factor=3.0)))
    run = PassManager(Store(tmp_path)).run(steps, teacher, context(teacher, tmp_path))
    assert [r["metrics"]["factor"] for r in run.records] == [2.0, 3.0]
    assert all(r["seconds"] > 0 and r["pass"] == "toy.scale" for r in run.records)
    assert [h["config"] for h in run.program.history] == [{"factor": 2.0}, {"factor": 3.0}]
    assert not any("seconds" in h for h in run.program.history)
    inputs = teacher.example_inputs(2)
    assert torch.allclose(run.program(*inputs), 6 * teacher(*inputs), atol=1e-6)  # type: ignore[arg-type, operator]


def test_second_run_reuses_and_gives_the_same_program(tmp_path: Path) -> None:
    teacher, steps = program(), pipeline(Scale(), Scale(Scale.Config(factor=3.0)))
    first = PassManager(Store(tmp_path)).run(steps, teacher, context(teacher, tmp_path))
    second = PassManager(Store(tmp_path)).run(steps, teacher, context(teacher, tmp_path))
    assert len(Scale.runs) == 2
    assert second.program.fingerprint == first.program.fingerprint
    assert second.records == first.records
    assert second.program.history == first.program.history


@pytest.mark.parametrize("change", [{"seed": 1}, {"effort": "max"}, {"data": data(classes=2)}])
def test_other_surroundings_are_not_reused(tmp_path: Path, change: dict[str, object]) -> None:
    teacher, steps = program(), pipeline(Scale())
    PassManager(Store(tmp_path)).run(steps, teacher, context(teacher, tmp_path))
    PassManager(Store(tmp_path)).run(steps, teacher, context(teacher, tmp_path, **change))
    assert len(Scale.runs) == (1 if change.get("data") is not None and _same_images(change) else 2)


def _same_images(change: dict[str, object]) -> bool:
    return change["data"].fingerprint == data().fingerprint  # type: ignore[attr-defined]


def test_exact_pass_must_reproduce_outputs(tmp_path: Path) -> None:
    teacher = program()
    steps = pipeline(Scale(), ExactScale())
    with pytest.raises(
        InternalError, match=r"pass 'toy.exact' after toy.scale broke the Program: an exact pass changed"
    ):
        PassManager(Store(tmp_path)).run(steps, teacher, context(teacher, tmp_path))
    PassManager(Store(tmp_path)).run(
        pipeline(ExactScale(ExactScale.Config(factor=1.0))), teacher, context(teacher, tmp_path)
    )


def test_broken_programs_are_caught_and_never_stored(tmp_path: Path) -> None:
    teacher, manager = program(), PassManager(Store(tmp_path))
    for _ in range(2):
        with pytest.raises(
            InternalError, match=r"pass 'toy.broken' as the first pass broke the Program: tensor .* not finite"
        ):
            manager.run(pipeline(Broken()), teacher, context(teacher, tmp_path))
    assert Scale.runs == ["toy.broken", "toy.broken"]


def test_unexpected_exceptions_name_the_pass(tmp_path: Path) -> None:
    teacher = program()
    with pytest.raises(InternalError, match=r"pass 'toy.crash' after toy.scale failed: KeyError: 'lost'"):
        PassManager(Store(tmp_path)).run(pipeline(Scale(), Crash()), teacher, context(teacher, tmp_path))


def test_resume_continues_after_the_last_stored_pass(tmp_path: Path) -> None:
    teacher, manager = program(), PassManager(Store(tmp_path))
    with pytest.raises(InternalError):
        manager.run(pipeline(Scale(), Crash()), teacher, context(teacher, tmp_path))
    manager.run(pipeline(Scale(), Scale(Scale.Config(factor=3.0))), teacher, context(teacher, tmp_path))
    assert Scale.runs == ["toy.scale", "toy.crash", "toy.scale"]


def test_instruments_look_on(tmp_path: Path) -> None:
    teacher, timing, memory = program(), Timing(), PeakMemory()
    dumps = Dumps(tmp_path / "dumps")
    PassManager(Store(tmp_path), [timing, memory, dumps]).run(pipeline(Scale()), teacher, context(teacher, tmp_path))
    assert timing.seconds["0.toy.scale"] > 0
    assert memory.peak["0.toy.scale"] > 1 << 20
    assert sorted(p.name for p in dumps.folder.iterdir()) == ["00.input.txt", "01.toy.scale.txt"]
    assert "aten.conv2d" in (dumps.folder / "00.input.txt").read_text()
