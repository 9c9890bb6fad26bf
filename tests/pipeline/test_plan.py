"""Planning: what is refused before any work, and in whose words."""

import time
from typing import ClassVar

import pytest

from compactor.budget import Budget
from compactor.errors import MissingRuntimeError, UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.pipeline.passes import Pass
from compactor.pipeline.plan import plan
from compactor.pipeline.text import Pipeline
from compactor.target import Target
from tests.pipeline.support import Device, Scale, Toy, pipeline, program


class Late(Scale):
    """Needs a scaled Program and spoils it."""

    name: ClassVar[str] = "toy.late"
    requires: ClassVar[frozenset[str]] = frozenset({"scaled"})
    ensures: ClassVar[frozenset[str]] = frozenset()
    breaks: ClassVar[frozenset[str]] = frozenset({"scaled"})
    after: ClassVar[tuple[str, ...]] = ("search",)


class Search(Scale):
    """Belongs to the group ``search``."""

    name: ClassVar[str] = "search.toy"
    before: ClassVar[tuple[str, ...]] = ("toy.scale",)
    ensures: ClassVar[frozenset[str]] = frozenset()


class Needy(Scale):
    """Needs what nobody has."""

    name: ClassVar[str] = "toy.needy"
    needs: ClassVar[dict[str, str]] = {"no_such_module": "quantize"}


class Choosy(Scale):
    """Cannot serve any target."""

    name: ClassVar[str] = "toy.choosy"

    def refuses(self, program: Program, target: Target, budget: Budget) -> list[str]:
        """Always."""
        return [f"{target.name} does not run float8"]


def _plan(*passes: Pass, budget: Budget | None = None, backend: Toy | None = None) -> None:
    plan(
        Pipeline(passes), program(), target=Device(), backend=backend or Toy(), budget=budget or Budget()
    )  # fmt: skip


def test_good_pipeline_is_planned_at_once() -> None:
    teacher = program()
    started = time.perf_counter()
    plan(pipeline(Search(), Scale(), Late()), teacher, target=Device(), backend=Toy(), budget=Budget(latency="5ms"))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("passes", [(Scale(), Search()), (Scale(), Late(), Search())])
def test_wrong_order(passes: tuple[Pass, ...]) -> None:
    with pytest.raises(UsageError, match=r"pass 'search.toy' must come before 'toy\.(scale|late)'"):
        _plan(*passes)


def test_missing_property() -> None:
    with pytest.raises(UsageError, match=r"pass 'toy.late' needs a Program that is 'scaled', and nothing before it"):
        _plan(Late())


def test_broken_property() -> None:
    with pytest.raises(UsageError, match=r"'toy.late' breaks it"):
        _plan(Scale(), Late(), Late())


def test_missing_module_names_the_extra() -> None:
    with pytest.raises(MissingRuntimeError, match=r"toy.needy.*no_such_module") as caught:
        _plan(Needy())
    assert "compactor[quantize]" in caught.value.remedy


def test_refusals_of_passes_and_backend() -> None:
    with pytest.raises(UnsupportedError, match=r"toy.choosy: toy does not run float8"):
        _plan(Choosy())
    with pytest.raises(UnsupportedError, match=r"no kernel for sin; no kernel for cos"):
        _plan(Scale(), backend=Toy(["no kernel for sin", "no kernel for cos"]))


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(latency="0.0001ms"), "latency 0.0001 ms is impossible on toy"),
        (Budget(size="10B"), "size 10 bytes is impossible"),
        (Budget(latency=-1.0), "not positive"),
        (Budget(size=0), "not positive"),
    ],
)
def test_impossible_budgets(budget: Budget, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _plan(Scale(), budget=budget)


def test_size_is_left_to_a_searching_pass() -> None:
    _plan(Search(), budget=Budget(size="10B"))
