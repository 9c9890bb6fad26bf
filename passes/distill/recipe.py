"""How a student is trained by default: by kind of model, size of the data and effort."""

from dataclasses import dataclass
from typing import Literal

import torch

from compactor.data import Split
from compactor.errors import InputError
from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.training.cache import Teacher

FLIP_AGREEMENT = 85.0
"""Percent of mirrored images on which the teacher must keep its opinion for mirroring to be of use."""

_FEWEST_STEPS, _MOST_STEPS = 20, 2000
"""Of an epoch, for a batch to be as large as it is."""
_LARGEST = 128


@dataclass(frozen=True)
class Recipe:
    """Defaults of one kind of model."""

    optimizer: Literal["adamw", "sgd"]
    lr: float
    batch: int
    weight_decay: float
    clip: float


NORMED_BY_BATCH = Recipe("sgd", 0.05, 128, 5e-4, 0.0)
OTHERS = Recipe("adamw", 1e-4, 32, 0.01, 1.0)


def recipe_of(program: Program) -> Recipe:
    """SGD for networks with batch norms, AdamW for the others."""
    return NORMED_BY_BATCH if any(n.target is aten.batch_norm.default for n in program.graph.nodes) else OTHERS


def batch_size(recipe: Recipe, samples: int) -> int:
    """The recipe's batch, halved while an epoch would be too few steps, doubled while it would be too many.

    A step has a price of its own, most of it for tables of embeddings: on small batches the optimizer takes longer than
    the gradient.
    """
    batch = recipe.batch
    while batch > 8 and samples // batch < _FEWEST_STEPS:
        batch //= 2
    while batch < _LARGEST and samples // batch > _MOST_STEPS:
        batch *= 2
    return batch


def rate(recipe: Recipe, batch: int) -> float:
    """The recipe's learning rate; that of Adam grows with the root of the batch (Malladi et al., arXiv 2205.10287)."""
    return recipe.lr * max(1.0, batch / recipe.batch) ** 0.5 if recipe.optimizer == "adamw" else recipe.lr


def batch_of(program: Program, samples: int, asked: int | None) -> int:
    """Samples per step, ``asked`` or by recipe. Raises `InputError` for fewer samples than that."""
    batch = asked or batch_size(recipe_of(program), samples)
    if samples < batch:
        raise InputError(
            f"{samples} training samples are fewer than one batch of {batch}", "give more data, or a smaller batch="
        )
    return batch


def takes_images(program: Program) -> bool:
    """Whether the one input is images, (N, C, H, W) of one to four channels."""
    if len(program.inputs) != 1 or not program.inputs[0].dtype.is_floating_point:
        return False
    shape = program.inputs[0].shape
    return len(shape) == 4 and shape[1] <= 4 and min(shape[2:]) >= 8


def mirrored_agrees(teacher: Teacher, split: Split, samples: int = 1000) -> bool:
    """Whether the teacher says the same of mirrored images (it does of cats, not of digits)."""
    indices = torch.arange(min(samples, len(split)))
    same = 0
    for part in torch.split(indices, 250):
        images = split.take(part).inputs[0]
        same += int((teacher([images]).argmax(-1) == teacher([images.flip(-1)]).argmax(-1)).sum())
    return 100.0 * same / len(indices) >= FLIP_AGREEMENT
