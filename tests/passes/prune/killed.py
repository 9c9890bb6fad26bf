"""Runs `prune.cofi` for `test_kill`: ``python -m tests.passes.prune.killed FOLDER``; the fingerprint goes to a file."""

import sys
from functools import partial
from pathlib import Path

import torch

from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.passes.distill import student
from compactor.passes.prune import cofi
from compactor.training import TrainConfig
from tests.passes.prune.support import around, latency, teacher


class Trace:
    """Names the training that is under way in a file, so that a test knows when to kill."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trace"

    def update(self, done: int, total: int, text: str = "") -> None:
        """One line for every step."""
        if "epoch" in text:
            with self.path.open("a") as handle:
                handle.write(f"{total}\n")

    def note(self, text: str) -> None:
        """Nothing."""


def main(folder: Path, layerwise: float) -> None:
    """Warm-up of 30 steps, pruning of 60, fine-tuning of 90, a checkpoint after each."""
    torch.set_num_threads(1)
    for module in (student, cofi):
        module.TrainConfig = partial(TrainConfig, checkpoint_seconds=0)  # type: ignore[misc,assignment,attr-defined]
    model = teacher("mobilenet_v2")
    pruned = slice_program(model, space_of(model).sample(0, keep=0.75, depth=1.0))
    ctx = around(model, folder, progress=Trace(folder))
    config = cofi.CofiConfig(
        latency=latency(model, ctx, 0.4), margin=1.0, multiple=1, batch=4, views=1, warmup=10, prune_epochs=20,
        epochs=30, layerwise=layerwise,
    )  # fmt: skip
    result = cofi.CofiPruning(config).run(pruned, ctx)
    (folder / "result").write_text(f"{result.program.fingerprint}\n{sorted(result.metrics.items())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
