"""Training data with variants that the teacher labels: of images and token sequences, where there are any."""

from torch import Tensor

from compactor.data import Split
from compactor.ir import lookups
from compactor.ir.program import Program
from compactor.passes.distill import recipe as recipes
from compactor.pipeline.context import PassContext
from compactor.training.neighbours import neighbours
from compactor.training.variants import Mixed, Reworded

COPIES = {"quick": 0, "balanced": 0, "max": 3}
"""Variants of every sample, by effort."""


def augmented(ctx: PassContext, copies: int | None) -> Split:
    """The training split, with ``copies`` variants of every sample (None: by effort) where they can be made."""
    copies = COPIES[ctx.effort] if copies is None else copies
    teacher, train = ctx.teacher, ctx.data.train
    if not copies or ctx.data.synthetic:
        return train
    if recipes.takes_images(teacher):
        return Mixed(train, copies, ctx.seed)
    return _reworded(teacher, train, copies, ctx)


def _reworded(teacher: Program, train: Split, copies: int, ctx: PassContext) -> Split:
    tables = {i: t for i in range(len(teacher.inputs)) if (t := _table(teacher, i)) is not None}
    if not tables:
        return train
    tokens = max(tables, key=lambda i: len(tables[i]))
    length = teacher.inputs[tokens].shape[1]
    sequences = tuple(i for i, s in enumerate(teacher.inputs) if len(s.shape) == 2 and s.shape[1] == length)
    mask = next((i for i in sequences if "mask" in teacher.inputs[i].name), None)
    near = neighbours(tables[tokens], train, tokens, ctx.workspace)
    return Reworded(train, copies, ctx.seed, near, tokens=tokens, mask=mask, sequences=sequences)


def _table(teacher: Program, index: int) -> Tensor | None:
    """The embedding of an input of token sequences."""
    spec = teacher.inputs[index]
    if spec.dtype.is_floating_point or len(spec.shape) != 2:
        return None
    node = lookups.table(teacher, spec.name)
    return teacher.state[str(node.target)] if node is not None and node.op == "get_attr" else None
