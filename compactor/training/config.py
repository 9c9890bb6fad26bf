"""`TrainConfig`: everything that decides what a training run computes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Optimizer = Literal["adamw", "sgd"]


class TrainConfig(BaseModel):
    """Settings of one training run. The same settings, data and threads give the same bytes.

    Attributes:
        epochs: passes over the split; fixed beforehand, never by the clock.
        batch: samples per optimizer step, over all micro-batches and processes.
        accumulate: micro-batches per step.
        warmup: share of all steps with a linearly rising learning rate; a cosine to zero follows.
        clip: largest gradient norm, 0 for none.
        ema: decay of the averaged weights per step, 0 for none.
        reduced: bfloat16 autocast and channels-last where the machine has the instructions.
        seconds: wall-clock limit after which training ends early (noted in the result), 0 for none. A safety net: a
            run that hits it is not reproducible.
        checkpoint_seconds: at most this much work is lost by a kill.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    epochs: int = Field(default=1, ge=1)
    batch: int = Field(default=128, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimizer: Optimizer = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup: float = Field(default=0.05, ge=0, le=1)
    clip: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0
    reduced: bool = True
    seconds: float = Field(default=0.0, ge=0)
    checkpoint_seconds: float = Field(default=20.0, ge=0)

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> "TrainConfig":
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} is not a multiple of accumulate {self.accumulate}")
        return self
