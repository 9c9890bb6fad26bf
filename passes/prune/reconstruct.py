"""Least-squares reconstruction: what reads a pruned axis is fitted anew to what it computed before."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from compactor.ir import graphs
from compactor.ir.gating import summed_weights
from compactor.ir.graphs import argument, arguments, aten, groups_of
from compactor.ir.program import Program
from compactor.ir.space import SearchSpace
from compactor.ir.subnet import Subnet
from compactor.training.schedule import generator

_TOGETHER = 8
"""Samples whose patches are in memory at once."""

_WINDOW = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))


def reconstructed(
    program: Program,
    student: Program,
    space: SearchSpace,
    subnet: Subnet,
    inputs: Sequence[Tensor],
    *,
    ridge: float,
    rows: int,
    seed: int,
) -> Program:
    """The sliced ``student`` with every matrix and filter that reads a pruned axis fitted to the Program's values.

    Each minimises |y - x w|^2 + ridge * |w - w0|^2, scaled by the mean square of x, on at most ``rows`` positions of
    the calibration samples: y is what the op computed before, x its input in the student, where earlier ops have been
    fitted already, w0 the sliced weight; a bias is fitted along (He et al., ICCV 2017, section 3.2). Filters of several
    groups, and weights that several ops share, stay as they are.
    """
    before, after = _Walk(program, inputs), _Walk(student, inputs)
    weights = {op.name: weight for op, weight, _ in summed_weights(student)}
    original = {n.name: n for n in program.graph.nodes}
    alive, changed = space.alive(subnet), dict[str, Tensor]()
    with torch.no_grad():
        for node in student.graph.nodes:
            weight = weights.get(node.name)
            if weight is not None and _fits(program, student, node, weight):
                old = original[node.name]
                dim = 1 if node.target is aten.conv2d.default else -1
                kept = space.kept_indices(space.analysis.of(old), alive)[dim]
                wanted = before.until(old)
                if kept is not None:
                    wanted = wanted.index_select(dim, torch.from_numpy(kept.nonzero()[0]))
                changed.update(_refit(after, node, weight, wanted, ridge, rows, seed))
            after.step(node)
    return student.with_state(changed)


class _Walk:
    """The values of a graph, node by node; those that are no longer needed are forgotten."""

    def __init__(self, program: Program, inputs: Sequence[Tensor]) -> None:
        self._run = fx.Interpreter(graphs.graph_module(program.graph, program.state), graph=program.graph)
        self._run.args_iter = iter(inputs)
        self._nodes = iter(program.graph.nodes)

    @property
    def values(self) -> dict[fx.Node, Any]:
        """What is there now."""
        return self._run.env

    def step(self, node: fx.Node) -> Any:
        """Run one node."""
        value = self.values[node] = self._run.run_node(node)
        for dead in self._run.user_to_last_uses.get(node, []):
            del self.values[dead]
        return value

    def peek(self, node: fx.Node) -> Any:
        """The value of the next node, which is not run."""
        return self._run.run_node(node)

    def until(self, last: fx.Node) -> Tensor:
        """Run up to a node and return its value."""
        while True:
            node = next(self._nodes)
            value = self.step(node)
            if node is last:
                return value  # type: ignore[no-any-return]


def _fits(program: Program, student: Program, node: fx.Node, weight: fx.Node) -> bool:
    """Whether an op can be fitted, and lost some of what it sums over."""
    if node.target is not aten.linear.default and (node.target is not aten.conv2d.default or groups_of(node) > 1):
        return False
    name = str(weight.target)
    return len(weight.users) == 1 and student.state[name].shape[1] < program.state[name].shape[1]


def _refit(
    walk: _Walk, node: fx.Node, weight: fx.Node, wanted: Tensor, ridge: float, rows: int, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """New values of the op's weight and bias, also in the walk."""
    bias = argument(node, 2, "bias")
    bias = bias if isinstance(bias, fx.Node) and len(bias.users) == 1 else None
    missing = wanted - walk.peek(node)
    moments = _moments(node, walk.values[arguments(node)[0]], missing, walk.values[weight].shape[2:], rows, seed)
    change, shift = _solved(*moments, ridge, centred=bias is not None)
    for tensor, delta in ((weight, change), (bias, shift)):
        if tensor is not None:
            old = walk.values[tensor]
            new = (old.double() + delta.reshape(old.shape)).to(old.dtype)
            walk.values[tensor] = new
            yield str(tensor.target), new


def _solved(xx: Tensor, xy: Tensor, x: Tensor, y: Tensor, ridge: float, *, centred: bool) -> tuple[Tensor, Tensor]:
    """(weights (out, in), bias (out,)) of the ridge regression with these mean products and means, float64."""
    if centred:
        xx, xy = xx - torch.outer(x, x), xy - torch.outer(x, y)
    damping = ridge * xx.diagonal().mean().clamp_min(1e-12)
    solution = torch.linalg.solve(xx + damping * torch.eye(len(xx), dtype=xx.dtype), xy).T
    return solution, y - solution @ x


def _moments(
    node: fx.Node, value: Tensor, missing: Tensor, window: Sequence[int], rows: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means over positions of x xT, x yT, x and y, float64: x is what one output reads, y what it misses."""
    random, total = generator(seed, len(value)), 0
    sums: list[Tensor] = []
    share = max(1, rows // len(value))
    for part, miss in zip(torch.split(value, _TOGETHER), torch.split(missing, _TOGETHER), strict=True):
        x, y = _positions(node, part, miss, window)
        picked = torch.randperm(x.shape[1], generator=random)[:share]
        x, y = (t[:, picked].flatten(0, 1).double() for t in (x, y))
        found = [x.T @ x, x.T @ y, x.sum(0), y.sum(0)]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        total += len(x)
    xx, xy, mean_x, mean_y = (s / total for s in sums)
    return xx, xy, mean_x, mean_y


def _positions(node: fx.Node, x: Tensor, y: Tensor, window: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What every output reads, (N, positions, in), and the outputs, (N, positions, out)."""
    if node.target is aten.linear.default:
        return x.reshape(len(x), -1, x.shape[-1]), y.reshape(len(y), -1, y.shape[-1])
    stride, padding, dilation = (argument(node, i, n, [d, d]) for i, n, d in _WINDOW)
    patches = F.unfold(x, tuple(window), dilation=dilation, padding=padding, stride=stride)
    return patches.transpose(1, 2), y.flatten(2).transpose(1, 2)
