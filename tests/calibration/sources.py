"""Callables that give data."""

from typing import Any

import torch

from compactor.calibration import synthetic
from compactor.data import DataSource
from compactor.ir.program import Program


def arrays() -> dict[str, Any]:
    """Arrays only."""
    return {"x": torch.arange(100.0).view(20, 5), "y": torch.arange(20) % 3}


def splits(seed: int) -> dict[str, Any]:
    """Arrays by split."""
    return {
        "train": arrays(),
        "dev": {"x": torch.full((4, 5), float(seed)), "y": torch.zeros(4).long()},
        "test": arrays(),
    }


def source(program: Program, seed: int) -> DataSource:
    """A whole source."""
    return synthetic.open(None, program, seed)


def fails() -> None:
    """Raises."""
    raise ConnectionError("no network")


def text() -> str:
    """Not data."""
    return "data"
