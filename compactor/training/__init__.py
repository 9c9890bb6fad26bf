"""The one training engine: `fit` runs an `Objective` over a split, with checkpoints, to reproducible weights."""

from compactor.training.config import TrainConfig
from compactor.training.engine import DivergedError, Micro, Objective, Result, Selection, fit

__all__ = ["DivergedError", "Micro", "Objective", "Result", "Selection", "TrainConfig", "fit"]
