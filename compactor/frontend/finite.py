"""Refuses weights that are not numbers."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from compactor.errors import InputError


def check_finite(state: Mapping[str, Tensor], trainable: Iterable[str]) -> None:
    """Raises `InputError` naming a tensor with NaN, or a trainable one with infinity (masks may hold it)."""
    trained = set(trainable)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor) if name in trained else torch.isnan(tensor)
        count = int(bad.sum())
        if count:
            raise InputError(
                f"tensor {name!r} has {count} of {tensor.numel()} values that are NaN or infinite",
                "use a checkpoint from before the training diverged",
            )
