"""Ranks NAS-Bench-201 latencies after ten samples: ``python -m benchmarks.latency_model.nas``.

Devices: a Raspberry Pi 4 and a Xeon, latencies of HW-NAS-Bench and BRP-NAS. Ten architectures, drawn by seed, are
learned by the latency model from their kernels; Spearman's rank correlation is over all others, the median of several
draws counts. Beside it: the datasheet alone, and multiply-accumulates. Writes ``results/latency_nas.json``.
"""

import argparse
import json
import statistics
import sys
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import fx

from benchmarks.data import shared
from compactor.ir import graphs
from compactor.ir.cost import kernels_of
from compactor.ir.graphs import aten
from compactor.ir.kernels import Kernel
from compactor.targets import correction
from compactor.targets.model import kernel_times
from compactor.targets.registry import profiles

BAR = 0.95
DEVICES = {"raspi4": "raspberry-pi-4", "gold_6226": "x86-avx512-vnni"}
"""The profile whose roofline is corrected: the nearest relative that comes with the package."""
STAGES = ((16, 32), (32, 16), (64, 8))
CELLS = 5


@cache
def cell(arch: str, width: int, side: int, dead: bool) -> tuple[Kernel, ...]:
    """The kernels of one cell; with ``dead``, also of operations that nothing reads."""
    return _Network(dead).cell(arch, width, side)


@cache
def skeleton() -> tuple[Kernel, ...]:
    """The kernels of everything but the cells: stem, two residual blocks, head (Dong and Yang 2020, section 2.1)."""
    found: list[Kernel] = []
    for build in (_stem, lambda n: _reduction(n, 16, 32), lambda n: _reduction(n, 32, 16), _head):
        network = _Network(False)
        build(network)
        found += network.kernels()
    return tuple(found)


def kernels(arch: str, dead: bool) -> tuple[Kernel, ...]:
    """The kernels of the whole network."""
    return skeleton() + tuple(k for width, side in STAGES for k in cell(arch, width, side, dead) * CELLS)


class _Network:
    def __init__(self, dead: bool) -> None:
        self.graph, self.shapes, self.dead = fx.Graph(), {}, dead

    def input(self, width: int, side: int) -> fx.Node:
        node = self.graph.placeholder("x")
        self.shapes[node] = (1, width, side, side)
        return node

    def call(self, op: Any, shape: tuple[int, ...], *args: Any) -> fx.Node:
        node = self.graph.call_function(op, args)
        self.shapes[node] = shape
        return node

    def conv(self, x: fx.Node, out: int, kernel: int, stride: int = 1, *, first: bool = True) -> fx.Node:
        """ReLU, convolution; the norm behind it is folded."""
        _, width, side, _ = self.shapes[x]
        x = self.call(aten.relu.default, self.shapes[x], x) if first else x
        weight = self.graph.get_attr(f"w{len(self.shapes)}")
        self.shapes[weight] = (out, width, kernel, kernel)
        shape = (1, out, side // stride, side // stride)
        return self.call(aten.conv2d.default, shape, x, weight, None, [stride] * 2, [kernel // 2] * 2)

    def add(self, a: fx.Node, b: fx.Node) -> fx.Node:
        return self.call(aten.add.Tensor, self.shapes[a], a, b)

    def kernels(self) -> tuple[Kernel, ...]:
        if not self.dead:
            graphs.eliminate_dead(self.graph)
        return kernels_of(self.graph, {n: s for n, s in self.shapes.items() if n in set(self.graph.nodes)})

    def cell(self, arch: str, width: int, side: int) -> tuple[Kernel, ...]:
        values: list[fx.Node | None] = [self.input(width, side)]
        for text in arch.split("+"):
            terms = [self._edge(edge, values) for edge in text.strip("|").split("|")]
            total = None
            for term in terms:
                total = term if total is None else self.add(total, term) if term is not None else total
            values.append(total)
        self.graph.output((values[-1],) if values[-1] is not None else ())
        return self.kernels()

    def _edge(self, edge: str, values: list[fx.Node | None]) -> fx.Node | None:
        op, _, source = edge.partition("~")
        x = values[int(source)]
        if x is None or op == "none":
            return None
        _, width, _, _ = shape = self.shapes[x]
        if op == "skip_connect":
            return x
        if op == "avg_pool_3x3":
            return self.call(aten.avg_pool2d.default, shape, x, [3, 3], [1, 1], [1, 1], False, False)
        return self.conv(x, width, 3 if op.endswith("3x3") else 1)


def _stem(network: _Network) -> None:
    network.graph.output((network.conv(network.input(3, 32), 16, 3, first=False),))


def _reduction(network: _Network, width: int, side: int) -> None:
    x = network.input(width, side)
    body = network.conv(network.conv(x, 2 * width, 3, 2), 2 * width, 3)
    half = (1, width, side // 2, side // 2)
    short = network.call(aten.avg_pool2d.default, half, x, [2, 2], [2, 2])
    network.graph.output((network.add(body, network.conv(short, 2 * width, 1, first=False)),))


def _head(network: _Network) -> None:
    x = network.input(64, 8)
    x = network.call(aten.relu.default, network.shapes[x], x)
    x = network.call(aten.mean.dim, (1, 64), x, [2, 3])
    weight, bias = network.graph.get_attr("w"), network.graph.get_attr("b")
    network.shapes |= {weight: (10, 64), bias: (10,)}
    network.graph.output((network.call(aten.linear.default, (1, 10), x, weight, bias),))


def ranks(device: str, samples: int, draws: int, seed: int, dead: bool, rest: int | None) -> dict[str, Any]:
    """Spearman's correlation with and without ``samples`` learned, and of multiply-accumulates, per draw."""
    data = np.load(shared() / "data/nas/nb201_cifar10.npz")
    profile = profiles.resolve(DEVICES[device]).profile
    generator = np.random.default_rng(seed)
    learned, before, macs, errors = [], [], [], []
    for _ in range(draws):
        order = generator.permutation(len(data["arch"]))[: None if rest is None else rest + samples]
        ms = data[device][order].astype(float)
        nets = [kernels(a, dead) for a in data["arch"][order]]
        rows = [correction.rows(k, kernel_times(profile, k, "float32"), profile.model.call_us) for k in nets]
        model = correction.learn(rows[:samples], ms[:samples])
        predicted = np.array([model.total(r)[0] for r in rows[samples:]])
        learned.append(_spearman(predicted, ms[samples:]))
        errors.append(float(np.median(np.abs(predicted / ms[samples:] - 1))))
        before.append(_spearman(np.array([r.base.sum() for r in rows[samples:]]), ms[samples:]))
        macs.append(_spearman(np.array([sum(k.macs for k in n) for n in nets[samples:]]), ms[samples:]))
    return {
        "spearman": learned, "median": statistics.median(learned), "datasheet": statistics.median(before),
        "macs": statistics.median(macs), "median_error": statistics.median(errors),
    }  # fmt: skip


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return round(float(spearmanr(a, b).statistic), 4)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.latency_model.nas", description=__doc__)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--draws", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rest", type=int, help="how many of the others are ranked (default: all)")
    parser.add_argument("--dead", action="store_true")
    options = parser.parse_args()
    found = {d: ranks(d, options.samples, options.draws, options.seed, options.dead, options.rest) for d in DEVICES}
    print(json.dumps(found, indent=2))
    return 0 if all(f["median"] >= BAR for f in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
