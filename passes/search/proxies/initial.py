"""Random initial weights, as DisWOT takes them (arXiv 2303.15678, section 3): N(0, 1), biases zero, norms the identity."""

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, fx

from compactor.ir.graphs import argument, op_name
from compactor.ir.program import Program

_NORMS = {
    "batch_norm": (1, 2), "layer_norm": (2, 3), "group_norm": (2, 3), "native_layer_norm": (2, 3),
    "native_group_norm": (1, 2), "instance_norm": (1, 2), "rms_norm": (2, None), "_fused_rms_norm": (2, None),
}  # fmt: skip
"""Positions of weight and bias."""
_BIASED = {"linear": 2, "addmm": 0, "conv1d": 2, "conv2d": 2, "conv3d": 2, "convolution": 2, "add": 1}


def initial(program: Program, seed: int) -> dict[str, Tensor]:
    """The state with trainable tensors drawn anew by seed and name, so that equal layers of two subnets start alike.

    Vectors that scale start at one, vectors that are added at zero. What is not trainable stays.
    """
    constant = _constants(program)
    state = dict(program.state)
    for name in program.trainable:
        value = program.state[name]
        if not value.is_floating_point():
            continue
        fill = constant.get(name, 1.0 if value.dim() < 2 else None)
        state[name] = _normal(f"{seed}:{name}", value) if fill is None else torch.full_like(value, fill)
    return state


def _normal(key: str, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn(like.shape, generator=generator).to(like.dtype)


def _constants(program: Program) -> Mapping[str, float]:
    """The value at which each tensor starts that is the weight of a norm or a bias; what adds a table is none."""
    found: dict[str, float] = {}

    def fill(node: fx.Node, index: int | None, value: float) -> None:
        tensor = argument(node, index, "") if index is not None else None
        if isinstance(tensor, fx.Node) and tensor.op == "get_attr":
            if op_name(node) != "add" or program.state[str(tensor.target)].dim() < 2:
                found[str(tensor.target)] = value

    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = op_name(node)
        weight, bias = _NORMS.get(name, (None, None))
        fill(node, weight, 1.0)
        fill(node, bias, 0.0)
        fill(node, _BIASED.get(name), 0.0)
    return found
