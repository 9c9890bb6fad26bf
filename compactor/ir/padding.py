"""Which positions of token-wise logits are padding."""

from collections.abc import Sequence
from types import EllipsisType

from torch import Tensor

from compactor.ir.program import Program


def mask_input(program: Program) -> int | None:
    """Which input says where tokens are, (N, T), such as ``attention_mask``; None where there is none."""
    return next((i for i, s in enumerate(program.inputs) if "mask" in s.name and len(s.shape) == 2), None)


def tokens(logits: Tensor, inputs: Sequence[Tensor], mask: int | None) -> Tensor | EllipsisType:
    """An index for what goes along with logits (N, T, classes): the positions that the input ``mask`` does not hide.

    ``...``, which takes everything, for logits of whole samples and where there is no mask over these positions.
    """
    if mask is None or logits.dim() != 3 or inputs[mask].shape != logits.shape[:2]:
        return ...
    return inputs[mask] > 0
