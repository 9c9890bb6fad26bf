"""What one random initialisation shows of a network on one batch: a forward pass and nothing else."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.nn import functional as F

from compactor.data import Batch
from compactor.ir.graphs import aten, op_name, tensors_of
from compactor.ir.program import Program
from compactor.passes.search.proxies.head import Head, find_head
from compactor.passes.search.proxies.initial import initial

_BENT = frozenset(
    name + suffix
    for name in ("relu", "relu6", "hardtanh", "gelu", "silu", "hardswish", "elu", "leaky_relu", "mish", "prelu", "celu")
    for suffix in ("", "_")
)
"""Activations that change their slope where the input changes its sign."""
_CHANNELS = {"conv1d": 1, "conv2d": 1, "conv3d": 1, "linear": -1}
"""Layers with weights, and the dimension of their channels."""
_SAMPLES = 8
_MOST = 8


@dataclass(frozen=True)
class Observation:
    """Statistics of one batch of N samples; they are small, so that those of a teacher can be kept.

    Attributes:
        gram: (N, N) products of the features of every two samples, rows of length one.
        gradient: (classes, C), the gradient of the cross entropy by the classifier's weight; None without labels, or
            where the classifier is no linear map of single vectors.
        codes: (units, bytes) uint8, the signs of each activation's input over the samples, packed; a unit is an element
            of one activation. Empty unless "codes" are needed.
        independence: of the channels of all layers with weights, over the first samples; 0 unless needed.
    """

    gram: Tensor
    gradient: Tensor | None
    codes: NDArray[np.uint8]
    independence: float = 0.0


def observe(program: Program, batch: Batch, seed: int, needs: frozenset[str] = frozenset()) -> Observation:
    """Initialise by seed, run the batch. Batch norms use its statistics, dropout is off; the Program stays as it is."""
    head = find_head(program)
    run = _Run(program, initial(program, seed), head, needs)
    with torch.no_grad():
        run.run(*(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in batch.inputs))
    gradient = None
    if head.logits is not None and head.pooled is not None and batch.labels is not None and batch.labels.dim() == 1:
        gradient = class_gradient(run.kept[head.pooled].flatten(1), run.kept[head.logits].flatten(1), batch.labels)
    return Observation(
        gram(run.kept[head.features]), gradient, _joined(run.codes, len(batch.inputs[0])), run.independence
    )


def gram(features: Tensor) -> Tensor:
    """(N, N): F F^T of the flattened features, every row divided by its length."""
    flat = features.flatten(1).float()
    flat = flat / flat.abs().max().clamp_min(1e-30)  # the result does not depend on the scale, the range of floats does
    return F.normalize(flat @ flat.T, dim=1)


def class_gradient(pooled: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """(classes, C): (softmax(logits) - onehot)^T pooled / N, the gradient of the mean cross entropy by the weight."""
    wrong = logits.float().softmax(1) - F.one_hot(labels, logits.shape[1])
    return wrong.T @ pooled.float() / len(labels)


def independence(features: Tensor) -> float:
    """The least eigenvalue of the correlations between channels, times channels over those looked at.

    ``features``: (channels, positions). At most 8 channels are looked at (the paper's `MeCo_opt`), evenly spaced: the
    least eigenvalue falls with their number, so that of all would favour narrow networks. Zero where positions are too
    few to tell that channels are independent.
    """
    channels = len(features)
    if channels > _MOST:
        features = features[torch.linspace(0, channels - 1, _MOST).long()]
    if features.shape[1] <= len(features):
        return 0.0
    centred = features.float() - features.float().mean(1, keepdim=True)
    centred = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-30)
    if not bool(centred.isfinite().all()):
        return float("nan")
    return float(torch.linalg.eigvalsh(centred @ centred.T)[0]) * channels / len(features)


class _Run(fx.Interpreter):
    """Runs a graph and keeps what an Observation is made of."""

    def __init__(self, program: Program, state: dict[str, Tensor], head: Head, needs: frozenset[str]) -> None:
        super().__init__(tensors_of(program.graph, state), garbage_collect_values=True, graph=program.graph)
        self._wanted = {head.features, head.pooled, head.logits}
        self._needs = needs
        self.kept: dict[fx.Node, Tensor] = {}
        self.codes: list[NDArray[np.uint8]] = []
        self.independence = 0.0

    def run_node(self, n: fx.Node) -> Any:
        if "codes" in self._needs and n.op == "call_function" and op_name(n) in _BENT:
            value: Tensor = self.env[n.all_input_nodes[0]]
            self.codes.append(np.packbits((value > 0).flatten(1).numpy(), axis=0).T)
        result = self._normed(n) if n.target is aten.batch_norm.default else super().run_node(n)
        if "independence" in self._needs and n.op == "call_function" and op_name(n) in _CHANNELS:
            features = result[:_SAMPLES].transpose(0, _CHANNELS[op_name(n)])
            self.independence += independence(features.reshape(len(features), -1))
        if n in self._wanted:
            self.kept[n] = result
        return result

    def _normed(self, node: fx.Node) -> Tensor:
        """A batch norm with the statistics of the batch; the running ones are left alone."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        x, weight, bias, *_ = args
        eps = args[7] if len(args) > 7 else kwargs.get("eps", 1e-5)
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def _joined(codes: list[NDArray[np.uint8]], samples: int) -> NDArray[np.uint8]:
    return np.concatenate(codes) if codes else np.zeros((0, -(-samples // 8)), np.uint8)
