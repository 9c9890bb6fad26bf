"""Kernels: the work of a Program as a runtime sees it, for cost counting and latency models."""

from dataclasses import dataclass

UNKNOWN = "unknown"
"""Kind of an op without a kernel model: its traffic is counted, its work is not."""

KINDS = (
    "conv", "depthwise", "linear", "attention", "matmul", "norm", "pool", "embedding", "pointwise", "move", UNKNOWN,
)  # fmt: skip

EPILOGUES = ("relu", "add", "sigmoid", "gelu")
"""Kinds of pointwise ops, each named after its commonest: clamps, arithmetic, with an exponential, with erf."""


@dataclass(frozen=True)
class Kernel:
    """One fused kernel at batch 1 (a convolution with its norm and activation is one).

    Attributes:
        kind: one of `KINDS`.
        macs: multiply-accumulates.
        inputs / weights / outputs: numbers of elements read, held and written.
        node: name of the anchoring graph node.
        groups, rows, columns, depth: a kernel with MACs as ``groups`` products of (rows x depth) by (depth x columns);
            a convolution has rows = output positions, columns = output channels and depth = input channels times taps,
            each per group. All 0 for kernels without MACs.
        fused: elements that its pointwise ops make, for each of `EPILOGUES`: what one runtime fuses costs another.
    """

    kind: str
    macs: int
    inputs: int
    weights: int
    outputs: int
    node: str
    groups: int = 0
    rows: int = 0
    columns: int = 0
    depth: int = 0
    fused: tuple[int, ...] = (0,) * len(EPILOGUES)
