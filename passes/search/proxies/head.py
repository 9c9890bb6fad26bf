"""Where the classifier of a Program starts: its last linear map and the features that are pooled for it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from compactor.ir import graphs
from compactor.ir.graphs import argument, op_name
from compactor.ir.program import Program

_PICKS = ("select", "slice", "index", "index_select", "gather", "narrow", "getitem")
_POOLS = (
    "mean", "sum", "amax", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d",
    "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", "max_pool2d_with_indices", *_PICKS,
)  # fmt: skip
_FREE = (
    "view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "dropout", "clone", "contiguous", "alias", "to",
    "_to_copy", "getitem",
)  # fmt: skip
_MATRICES = {"linear": (0, 1), "addmm": (1, 2), "mm": (0, 1), "matmul": (0, 1), "conv1d": (0, 1), "conv2d": (0, 1)}
"""Ops that can classify: positions of data and weight."""


@dataclass(frozen=True)
class Head:
    """``features``: the last tensor before positions are pooled, (N, C, H, W) or (N, tokens, C).

    ``logits`` is the output of the last linear map, ``pooled`` its (N, C) input. Both are None where the map is not the
    last thing that is computed, or is not one of single vectors: then the gradient of its weight has no closed form.
    """

    features: fx.Node
    pooled: fx.Node | None
    logits: fx.Node | None


def find_head(program: Program) -> Head:
    """Walk back from the first output as long as the way is single: past classifiers, up to what pools positions."""
    node: fx.Node = graphs.output_node(program.graph).args[0][0]  # type: ignore[index,assignment]
    classifier: fx.Node | None = None
    plain = True
    while (source := _source(node)) is not None:
        if op_name(node) in _MATRICES:
            classifier = node if classifier is None else classifier
        elif op_name(node) in _POOLS and _elements(program, node) < _elements(program, source):
            if classifier is not None:
                return _head(program, source, classifier, plain)
            plain = False
        elif classifier is None and op_name(node) not in _FREE:
            plain = False
        node = source
    if classifier is None:
        return Head(node, None, None)
    return _head(program, _source(classifier) or classifier, classifier, plain)


def _head(program: Program, features: fx.Node, classifier: fx.Node, plain: bool) -> Head:
    pooled, size = _source(classifier), program.state[_weight(classifier)].shape
    vectors = pooled is not None and _elements(program, pooled) == size.numel() // size[_classes_at(classifier)]
    return Head(features, pooled, classifier) if plain and vectors else Head(features, None, None)


def _classes_at(classifier: fx.Node) -> int:
    """Which dimension of its weight counts the classes: (classes, C) but for plain products."""
    return 0 if op_name(classifier) in ("linear", "conv1d", "conv2d") else -1


def _weight(node: fx.Node) -> str:
    weight = node.args[_MATRICES[op_name(node)][1]]
    while isinstance(weight, fx.Node) and weight.op != "get_attr":
        weight = weight.args[0]
    return str(weight.target) if isinstance(weight, fx.Node) else ""


def _source(node: fx.Node) -> fx.Node | None:
    """The one value that a node goes on from; None for what joins several, looks around, or starts from nothing."""
    if node.op != "call_function":
        return None
    name = op_name(node)
    if name in _MATRICES:
        data, weight = (node.args[i] for i in _MATRICES[name])
        learned = isinstance(weight, fx.Node) and _constant(weight)
        return data if learned and isinstance(data, fx.Node) and not _looks_around(node) else None
    if name in _PICKS:
        return node.args[0] if isinstance(node.args[0], fx.Node) else None
    varying = [n for n in node.all_input_nodes if not _constant(n)]
    return varying[0] if len(varying) == 1 and "conv" not in name and name != "embedding" else None


def _constant(node: fx.Node) -> bool:
    """Whether a value depends on weights alone."""
    return node.op == "get_attr" or (
        node.op == "call_function" and bool(node.all_input_nodes) and all(map(_constant, node.all_input_nodes))
    )


def _looks_around(node: fx.Node) -> bool:
    """Whether a convolution has more than one tap or stride: then it is part of the body."""
    if "conv" not in op_name(node):
        return False
    padding = argument(node, 4, "padding", [0])
    return isinstance(padding, str) or any(padding) or any(s > 1 for s in argument(node, 3, "stride", [1]))


def _elements(program: Program, node: fx.Node) -> int:
    value: Any = program.values[node]
    return value.numel() if isinstance(value, Tensor) else 0
