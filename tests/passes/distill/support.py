"""Contexts for passes that train, a small sequence classifier, and its data."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from compactor.budget import Budget
from compactor.data import DataSource
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.pipeline.context import PassContext
from tests.models import program
from tests.passes.support import Tensors


def context(teacher: Program, data: DataSource, folder: Path, **options: Any) -> PassContext:
    """A context for passes that need neither target nor backend."""
    nothing: Any = None
    folder.mkdir(exist_ok=True)
    return PassContext(teacher, nothing, nothing, data, Budget(), folder, **options)


@cache
def encoder() -> Program:
    """Two layers of attention and feed-forward over (N, 12, 10), seven classes."""
    return program("packed_chunk")


def sliced(teacher: Program, seed: int = 0, keep: float = 0.5, drop: int = 1) -> Program:
    """A student with a share of all units and without its last blocks."""
    space = space_of(teacher)
    kept = dict(space.sample(seed, keep, 1.0).kept)
    dropped = [b.name for b in space.blocks[len(space.blocks) - drop :]]
    return slice_program(teacher, space.choose(kept, dropped))


def sequences(teacher: Program, labelled: bool = True, samples: int = 64) -> DataSource:
    """Random inputs of a teacher, labelled by it."""

    def split(seed: int, count: int) -> Tensors:
        inputs = tuple(
            torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)) if x.is_floating_point() else x
            for x in teacher.example_inputs(count, seed)
        )
        found = teacher(*inputs)
        assert isinstance(found, torch.Tensor)
        return Tensors(inputs, found.argmax(-1) if labelled else None)

    return DataSource(split(0, samples), split(1, 32), split(2, 32))


class Stop:
    """Progress that interrupts training once a step is reached."""

    def __init__(self, at: int, word: str = "epoch") -> None:
        self.at, self.word = at, word

    def update(self, done: int, total: int, text: str = "") -> None:
        """Interrupts."""
        if self.word in text and done == self.at:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        """Nothing."""
