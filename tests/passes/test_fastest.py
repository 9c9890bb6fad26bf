"""`quantize.fastest`: what pays on the target wins, and every other precision is told why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compactor.backend import Lowered, Session
from compactor.budget import Budget
from compactor.errors import UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.candidates import Candidate
from compactor.passes.quantize.fastest import Fastest, FastestConfig, choose
from compactor.target import Target
from tests.models import program
from tests.passes.support import Device, context
from tests.pipeline.support import Toy


def _prepared() -> Program:
    return folded_program(canonical(program("resnet_b"))[0])[0]


def _run(folder: Path, times: dict[str, float], **options: Any) -> tuple[Program, dict[str, Any], dict[str, str]]:
    whole = _prepared()
    ctx = context(whole, folder, device=Device(times=times), **options)
    result = Fastest(FastestConfig(samples=4, drop=50)).run(whole, ctx)
    reasons = {c["precision"]: c["reason"] for c in result.metrics["candidates"]}
    return result.program, result.metrics, reasons


def test_int8_is_not_chosen_for_being_small(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    result, metrics, reasons = _run(tmp_path, {"float32": 3.0, "bfloat16": 1.0, "int8": 2.0})
    assert result.precision == metrics["chosen"] == "bfloat16"
    assert reasons["bfloat16"] == "fastest" and reasons["int8"] == "slower than bfloat16"
    assert reasons["float16"] == "toy does not run it"


def test_int8_is_chosen_where_it_pays(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    result, metrics, _ = _run(tmp_path, {"float32": 3.0, "bfloat16": 2.0, "int8": 1.0})
    assert result.precision == "int8"
    assert all(c["latency"]["basis"] == "predicted" for c in metrics["candidates"] if "latency" in c)
    assert metrics["score"]["name"] == "accuracy" and metrics["score"]["samples"] == 12


def test_a_tie_goes_to_the_simpler(tmp_path: Path) -> None:
    result, _, reasons = _run(tmp_path, {"float32": 1.02, "bfloat16": 1.0})
    assert result.precision == "float32"
    assert reasons["bfloat16"] == "no faster than float32, which is simpler"


def test_without_labels_agreement_counts(tmp_path: Path) -> None:
    _, metrics, _ = _run(tmp_path, {"float32": 2.0, "bfloat16": 1.0}, labels=False)
    assert metrics["score"]["name"] == "agreement"


def test_float32_stays_as_it_is(tmp_path: Path) -> None:
    whole = _prepared()
    result = Fastest().run(whole, context(whole, tmp_path, device=Device(times={"float32": 1.0})))
    assert result.program is whole and not result.modified


def test_a_device_that_runs_nothing_of_it_is_an_error(tmp_path: Path) -> None:
    whole = _prepared()
    ctx = context(whole, tmp_path, device=Device(times={"float32": 1.0}), backend=Toy(["the graph is cursed"]))
    with pytest.raises(UnsupportedError, match="cursed"):
        Fastest().run(whole, ctx)


def test_choosing_twice_is_refused(tmp_path: Path) -> None:
    whole = _prepared().evolve(precision="bfloat16")
    with pytest.raises(UsageError, match="bfloat16 already"):
        Fastest().run(whole, context(whole, tmp_path))


class Stubborn(Toy):
    """Lowers, and runs everything as a model that always answers class 0."""

    def installed(self) -> bool:
        """Here."""
        return True

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """One byte for each of the precision's letters."""
        (folder / "model").write_text(program.precision)
        return Lowered("toy", folder, ("model",), program.precision)

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Class 0 of ten, whatever the inputs."""
        return lambda inputs: (torch.eye(10)[:1].expand(len(inputs[0]), 10),)  # type: ignore[return-value]


def test_where_the_runtime_is_here_the_lowered_model_is_scored(tmp_path: Path) -> None:
    whole = _prepared()
    device = Device(times={"float32": 2.0, "bfloat16": 1.0})
    ctx = context(whole, tmp_path, device=device, backend=Stubborn(), budget=Budget(size=7))
    result = Fastest(FastestConfig()).run(whole, ctx)
    share = 100 * float((ctx.data.dev.take(torch.arange(12)).labels == 0).float().mean())
    found = [c for c in result.metrics["candidates"] if "score" in c]
    assert [c["score"] for c in found] == pytest.approx([share, share]) and share < 100
    assert [c["size"] for c in found] == [7, 8]
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


@dataclass(frozen=True)
class Here(Device):
    """A device that is here, on which what runs alone beside the teacher looks up to a tenth faster than it is."""

    present: bool = True

    def measure(self, session: Session, inputs: Sequence[Tensor]) -> Latency:
        """The teacher's."""
        return Latency(4.0, "measured")

    def compare(self, sessions: Mapping[str, Session], inputs: Sequence[Tensor]) -> dict[str, Latency]:
        """By precision; alone with the teacher, int8 seems the faster one."""
        flattered = 0.9 if len(sessions) == 2 else 1.0
        found = {}
        for name, session in sessions.items():
            precision = str(session)
            found[name] = Latency(self.times[precision] * (flattered if precision == "int8" else 1.0), "measured")
        return found


@dataclass(frozen=True)
class Named:
    """A session that knows its precision."""

    precision: str

    def __str__(self) -> str:
        return self.precision

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Class 0 of ten."""
        return (torch.eye(10)[:1].expand(len(inputs[0]), 10),)


class Opening(Stubborn):
    """As the above; its sessions know their precision."""

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """By the model's precision."""
        return Named(lowered.precision)  # type: ignore[return-value]


def test_close_candidates_are_timed_in_turns(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    whole = _prepared()
    device = Here(times={"float32": 4.0, "bfloat16": 1.0, "int8": 1.05})
    ctx = context(whole, tmp_path, device=device, backend=Opening())
    result = Fastest(FastestConfig(samples=4, drop=100, tie=0.0)).run(whole, ctx)
    times = {c["precision"]: c["latency"]["p50"] for c in result.metrics["candidates"] if "latency" in c}
    assert result.metrics["chosen"] == "bfloat16" and times == pytest.approx(dict(device.times))
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith("tmp")]


def _candidate(precision: str, p50: float, score: float, size: int | None = None) -> Candidate:
    return Candidate(precision, None, Latency(p50, "measured"), score, size)


def test_choice_respects_accuracy_then_size() -> None:
    made = [_candidate("float32", 3, 90, 40), _candidate("bfloat16", 2, 89.8, 20), _candidate("int8", 1, 85, 10)]
    assert choose(made, 89.0, None, 0.03).precision == "bfloat16"
    assert made[2].reason == "not accurate enough"
    assert choose(made, 80.0, None, 0.03).precision == "int8"
    assert choose(made, 89.0, 15, 0.03).precision == "int8", "only int8 fits"
    assert made[1].reason == "larger than the size budget"
    assert choose(made, 80.0, 5, 0.03).precision == "int8", "nothing fits: the smallest"
    assert choose(made, 95.0, None, 0.03).precision == "float32", "nothing is accurate enough: the most accurate"


def test_a_slower_int8_wins_only_when_the_size_needs_it() -> None:
    made = [_candidate("float32", 2, 90, 40), _candidate("bfloat16", 1, 90, 20), _candidate("int8", 3, 90, 10)]
    assert choose(made, 89.0, None, 0.03).precision == "bfloat16"
    assert choose(made, 89.0, 12, 0.03).precision == "int8"


def test_a_stricter_drop_of_the_build_counts(tmp_path: Path) -> None:
    whole = _prepared()
    floors = []
    for drop in ("0.5%", "2%"):
        ctx = context(whole, tmp_path, device=Device(times={"float32": 1.0}), budget=Budget(drop=drop))
        floors.append(Fastest().run(whole, ctx).metrics["score"]["floor"])
    assert floors == [99.5, 99.0]
