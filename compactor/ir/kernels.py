"""Kernels: the work of a Program as a runtime sees it, for cost counting and latency models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """One fused kernel at batch 1 (a convolution with its norm and activation is one).

    Attributes:
        kind: conv, depthwise, linear, attention, matmul, norm, pool, embedding, pointwise, move.
        macs: multiply-accumulates.
        inputs / weights / outputs: numbers of elements read, held and written.
        node: name of the anchoring graph node.
    """

    kind: str
    macs: int
    inputs: int
    weights: int
    outputs: int
    node: str
