"""Goals on a device that is here: measurements correct predictions, and a wrong one does not decide."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from compactor.budget import Budget
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.prune.oneshot import OneshotConfig, OneshotPruning
from compactor.passes.search.uniform import UniformConfig, UniformSearch
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassResult
from tests.models import program
from tests.passes.support import Device, context
from tests.pipeline.support import Toy

PASSES: dict[str, Callable[[], Any]] = {
    "uniform": lambda: UniformSearch(UniformConfig(speedup=2.0, margin=1.0, multiple=1)),
    "oneshot": lambda: OneshotPruning(OneshotConfig(speedup=2.0, margin=1.0, multiple=1, samples=4)),
}


class Here(Toy):
    """A backend that runs here."""

    def installed(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class Linear(Device):
    """A present device that is thought to take as long as there are multiply-accumulates."""

    times: Any = field(default_factory=lambda: {"float32": 1.0})
    present: bool = True

    def expected(self, kernels: Any, precision: Any) -> Tensor:
        """The same of expected kernels."""
        found: Tensor = (kernels.keep * kernels.macs).sum() / 1e6
        return found

    def predict(self, kernels: Sequence[Kernel], precision: Any) -> Latency:
        """A millisecond for each million."""
        p50 = sum(k.macs for k in kernels) / 1e6
        return Latency(p50, "predicted", low=p50 / 2, high=p50 * 2)


@dataclass
class Stopwatch:
    """Real times: a third of the whole is there whatever is pruned. ``wrong`` measures students (by number) amiss."""

    whole: float
    wrong: dict[int, float]
    taken: list[float] = field(default_factory=list)

    def true(self, model: Program) -> float:
        """Milliseconds."""
        return self.whole / 3 + 2 / 3 * sum(k.macs for k in model.kernels()) / 1e6

    def __call__(self, model: Program, measure: object) -> Latency:
        """In place of a ledger."""
        self.taken.append(self.true(model))
        return Latency(self.taken[-1] * self.wrong.get(len(self.taken) - 1, 1.0), "measured")


def run(name: str, folder: Path, wrong: dict[int, float]) -> tuple[PassResult, Stopwatch]:
    model = canonical(program("resnet_b"))[0]
    clock = Stopwatch(sum(k.macs for k in model.kernels()) / 1e6, wrong)
    ctx: PassContext = replace(context(model, folder, backend=Here()), target=Linear(), ledger=clock)  # type: ignore[arg-type]
    return PASSES[name]().run(model, ctx), clock


@pytest.mark.parametrize("name", sorted(PASSES))
def test_measurements_correct_predictions(name: str, tmp_path: Path) -> None:
    result, clock = run(name, tmp_path, {})
    assert 0.8 * clock.whole / 2 <= clock.true(result.program) <= 1.03 * clock.whole / 2


@pytest.mark.parametrize("factor", [0.3, 3.0])
@pytest.mark.parametrize("name", sorted(PASSES))
def test_a_disturbed_measurement_does_harm_within_bounds(name: str, factor: float, tmp_path: Path) -> None:
    """The first two are of the teacher, the third is the first student's."""
    result, clock = run(name, tmp_path, {2: factor})
    assert 0.7 * clock.whole / 2 <= clock.true(result.program) <= 1.4 * clock.whole / 2


@pytest.mark.parametrize("name", sorted(PASSES))
def test_a_share_of_the_latency_is_the_teachers_and_a_speedup_that_of_the_program(name: str, tmp_path: Path) -> None:
    teacher = canonical(program("resnet_b"))[0]
    ctx = replace(context(teacher, tmp_path), target=Linear(present=False))
    macs = teacher.cost().macs
    half = PASSES[name]().run(teacher, ctx).program
    same = PASSES[name]().run(half, replace(ctx, budget=Budget(latency="50%"))).program
    quarter = PASSES[name]().run(half, ctx).program
    assert 0.3 * macs < half.cost().macs <= 0.5 * macs
    assert same.cost().macs == half.cost().macs
    assert quarter.cost().macs <= 0.5 * half.cost().macs
