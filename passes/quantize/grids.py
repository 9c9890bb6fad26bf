"""Scales of weights with few bits: those of the least squared error, channel by channel."""

from dataclasses import replace

import torch
from torch import Tensor

from compactor.ir.program import Program
from compactor.ir.quantplan import Quantizer, QuantPlan

_STEPS = 64
_LEAST = 0.2
_ZERO = 0.7


def fitted_weights(program: Program, plan: QuantPlan, bits: int) -> QuantPlan:
    """The plan with weights of at most this many bits on a symmetric grid, scales fitted to the Program's weights.

    Few bits are worth clipping outliers for: of `_STEPS` ranges from a fifth of the largest weight to all of it, each
    channel gets that of the least squared error (OMSE, Choukroun et al. 2019, section 3). Two bits are ternary.
    """
    most = 2 ** (bits - 1) - 1
    fit = _ternary if bits == 2 else _fitted
    changes = {i: fit(program.state[q.source], q, most) for i, q in enumerate(plan) if q.weight and q.high > most}
    return plan.replaced(changes)


def _fitted(weight: Tensor, quantizer: Quantizer, most: int) -> Quantizer:
    rows = _rows(weight, quantizer)
    largest = rows.abs().amax(1).clamp_min(torch.finfo(rows.dtype).tiny * most)
    best, scale = torch.full_like(largest, torch.inf), largest / most
    for share in torch.linspace(_LEAST, 1, _STEPS).tolist():
        tried = share * largest / most
        rounded = (rows / tried[:, None]).round().clamp(-most, most) * tried[:, None]
        error = (rounded - rows).square().sum(1)
        scale, best = torch.where(error < best, tried, scale), torch.minimum(error, best)
    return replace(quantizer, scale=scale.reshape(quantizer.scale.shape), low=-most, high=most)


def _ternary(weight: Tensor, quantizer: Quantizer, most: int) -> Quantizer:
    """Zero below 0.7 times the mean size (Li et al. 2016, section 2.3); one scale, at twice that: rounding does it."""
    rows = _rows(weight, quantizer)
    scale = (2 * _ZERO * rows.abs().mean(1)).clamp_min(torch.finfo(rows.dtype).tiny)
    return replace(quantizer, scale=scale.reshape(quantizer.scale.shape), low=-most, high=most)


def _rows(weight: Tensor, quantizer: Quantizer) -> Tensor:
    """(scales, weights that share one)."""
    axis = quantizer.axis
    return weight.reshape(1, -1) if axis is None else weight.movedim(axis, 0).reshape(weight.shape[axis], -1)
