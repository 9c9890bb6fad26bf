"""Ranks NAS-Bench-201 latencies after ten samples: ``python -m benchmarks.latency_model.nas``.

Devices: a Raspberry Pi 4 and a Xeon, latencies of HW-NAS-Bench and BRP-NAS. Ten architectures, drawn by seed, are
learned by the latency model from their kernels; Spearman's rank correlation is over all others, the median of several
draws counts. Beside it: the datasheet alone, and multiply-accumulates. Writes ``results/latency_nas.json``.
"""

import argparse
import statistics
import sys
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import fx

from benchmarks import facts
from benchmarks.data import shared
from compactor.ir import graphs
from compactor.ir.cost import kernels_of
from compactor.ir.graphs import aten
from compactor.ir.kernels import Kernel
from compactor.targets import correction
from compactor.targets.model import kernel_times
from compactor.targets.registry import profiles

BAR = 0.95
DEVICES = {"raspi4": ("raspberry-pi-4", False), "gold_6226": ("x86-avx512-vnni", True)}
"""The profile whose roofline is corrected, and whether the framework was eager, so that it ran what nothing reads."""
STAGES = ((16, 32), (32, 16), (64, 8))
CELLS = 5


@cache
def cell(arch: str, width: int, side: int, eager: bool) -> tuple[Kernel, ...]:
    """The kernels of one cell; none where its output does not depend on its input."""
    return _Network(eager).cell(arch, width, side)


@cache
def skeleton(part: str) -> tuple[Kernel, ...]:
    """The kernels outside the cells: ``body`` (stem, two residual blocks) or ``head`` (Dong and Yang 2020)."""
    parts = {"body": (_stem, lambda n: _reduction(n, 16, 32), lambda n: _reduction(n, 32, 16)), "head": (_head,)}
    found: list[Kernel] = []
    for build in parts[part]:
        network = _Network(False)
        build(network)
        found += network.kernels()
    return tuple(found)


def kernels(arch: str, eager: bool) -> tuple[Kernel, ...]:
    """The kernels of the whole network; of one that is constant, the head is left."""
    cells = [cell(arch, width, side, eager) for width, side in STAGES]
    head = skeleton("head")
    return skeleton("body") + tuple(k for c in cells for k in c * CELLS) + head if any(cells) or eager else head


class _Network:
    def __init__(self, eager: bool) -> None:
        self.graph, self.shapes, self.eager = fx.Graph(), {}, eager

    zeros: fx.Node

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
        if not self.eager:
            graphs.eliminate_dead(self.graph)
        return kernels_of(self.graph, {n: s for n, s in self.shapes.items() if n in set(self.graph.nodes)})

    def cell(self, arch: str, width: int, side: int) -> tuple[Kernel, ...]:
        x, self.zeros = self.input(width, side), self.input(width, side)
        values: list[fx.Node | None] = [x]
        for text in arch.split("+"):
            total = None
            for edge in text.strip("|").split("|"):
                term = self._edge(edge, values)
                total = term if total is None else self.add(total, term) if term is not None else total
            values.append(total)
        self.graph.output((values[-1],))
        return self.kernels() if values[-1] is not None else ()

    def _edge(self, edge: str, values: list[fx.Node | None]) -> fx.Node | None:
        """What an edge adds; None for a constant zero. Convolutions of zeros do run: their bias is none."""
        op, _, source = edge.partition("~")
        x = values[int(source)]
        if op == "none" or (op == "skip_connect" and x is None):
            return self.call(aten.mul.Tensor, self.shapes[x], x, 0.0) if self.eager and x is not None else None
        x = self.zeros if x is None else x
        shape = self.shapes[x]
        if op == "skip_connect":
            return x
        if op == "avg_pool_3x3":
            return self.call(aten.avg_pool2d.default, shape, x, [3, 3], [1, 1], [1, 1], False, False)
        return self.conv(x, shape[1], 3 if op.endswith("3x3") else 1)


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


def ranks(device: str, samples: int, draws: int, seed: int, rest: int | None) -> dict[str, Any]:
    """Spearman's correlation with and without ``samples`` learned, and of multiply-accumulates, per draw."""
    data = np.load(shared() / "data/nas/nb201_cifar10.npz")
    name, eager = DEVICES[device]
    target = profiles.resolve(name)
    generator = np.random.default_rng(seed)
    found: dict[str, list[float]] = {key: [] for key in ("spearman", "datasheet", "macs", "median_error")}
    for _ in range(draws):
        order = generator.permutation(len(data["arch"]))[: None if rest is None else rest + samples]
        ms = data[device][order].astype(float)
        nets = [kernels(str(a), eager) for a in data["arch"][order]]
        rows = [target.rows(k, kernel_times(target.profile, k, "float32")) for k in nets]
        model = correction.learn(rows[:samples], ms[:samples])
        true, others = ms[samples:], rows[samples:]
        predicted = np.array([model.total(r)[0] for r in others])
        found["spearman"].append(_spearman(predicted, true))
        found["datasheet"].append(_spearman(np.array([r.base.sum() for r in others]), true))
        found["macs"].append(_spearman(np.array([sum(k.macs for k in n) for n in nets[samples:]]), true))
        found["median_error"].append(round(float(np.median(np.abs(predicted / true - 1))), 4))
    return {**{key: statistics.median(values) for key, values in found.items()}, "draws": found["spearman"]}


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return round(float(spearmanr(a, b).statistic), 4)


def main() -> int:
    """Learn, rank, print, write."""
    parser = argparse.ArgumentParser(prog="benchmarks.latency_model.nas", description=__doc__)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--draws", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rest", type=int, help="how many of the others are ranked (default: all; nothing is stored else)"
    )
    options = parser.parse_args()
    found = {d: ranks(d, options.samples, options.draws, options.seed, options.rest) for d in DEVICES}
    for device, row in found.items():
        print(device, row, "passed" if row["spearman"] >= BAR else "MISSED")
    if options.rest is None:
        print(
            facts.write("latency_nas", {**facts.facts(options.seed), "bar": BAR, "samples": options.samples, **found})
        )
    return 0 if all(row["spearman"] >= BAR for row in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
