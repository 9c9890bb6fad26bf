"""NAS-Bench-201 networks as Programs, and the halves that a score is chosen and reported on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.search import nasbench
from benchmarks.search.cells import network
from compactor.ir.graphs import op_name
from compactor.ir.verify import verify

NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
MIXED = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|none~1|nor_conv_1x1~2|"


def test_networks_are_those_of_the_benchmark() -> None:
    """Parameters and MACs of the paper's API: 1.53 M and 220 M with every edge a 3x3 convolution."""
    largest = network(nasbench.TEACHER)
    verify(largest)
    cost = largest.cost()
    assert cost.parameters == pytest.approx(1.531e6, rel=0.005)
    assert cost.macs == pytest.approx(220e6, rel=0.01)
    assert largest(torch.zeros(3, 3, 32, 32)).shape == (3, 10)  # type: ignore[union-attr]


def test_what_reads_zeros_is_left_out() -> None:
    mixed = network(MIXED)
    verify(mixed)
    assert sum(op_name(n) == "conv2d" for n in mixed.graph.nodes) == 1 + 15 * 3 + 2 * 3
    verify(network(NONE))


def test_halves_share_nothing(shared: Path) -> None:
    first, second = nasbench.halves(500, 0)
    assert len(set(first)) == len(set(second)) == 500 and not set(first) & set(second)
    assert nasbench.halves(500, 0) == (first, second) != nasbench.halves(500, 1)


def test_correlations() -> None:
    table = np.random.default_rng(0).normal(size=(50, len(nasbench.PROXIES)))
    accuracy = table[:, list(nasbench.PROXIES).index("macs")]
    assert nasbench.correlations(table, accuracy, "macs") == {"kendall": 1.0, "spearman": 1.0}
    ranked = nasbench.ranked(table, accuracy, nasbench.combinations(2))
    assert next(iter(ranked)) == "macs"
