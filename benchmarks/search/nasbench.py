"""Rank correlation of every proxy with accuracy: ``python -m benchmarks.search.nasbench``.

NAS-Bench-201 on CIFAR-10: test accuracy after 200 epochs of training. Architectures are drawn by seed into two halves. The
default score was chosen on the first half (``--tune``); figures are those of the second. The teacher is the largest cell
(3x3 convolutions on every edge), which no accuracy selects. Writes ``results/nasbench.json``.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from benchmarks import facts
from benchmarks.data import prepare_cifar10, shared
from benchmarks.search.cells import network
from compactor.data import Batch
from compactor.passes.search.proxies import DEFAULT, PROXIES, Costs, Setting, combined, values
from compactor.targets.registry import profiles

BAR = 0.70
TEACHER = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
DEVICE = "raspberry-pi-4"
WORK = facts.ROOT / ".compactor" / "benchmarks" / "nasbench"


def halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the architectures to choose a score on, and of those to report; ``count`` each, disjoint."""
    order = np.random.default_rng(seed).permutation(len(_table()["arch"]))
    return order[:count].tolist(), order[count : 2 * count].tolist()


@cache
def _table() -> dict[str, NDArray[Any]]:
    with np.load(shared() / "data/nas/nb201_cifar10.npz") as data:
        return {name: data[name] for name in ("arch", "test_accuracy")}


@cache
def setting(batches: int, samples: int, inits: int, seed: int) -> Setting:
    """Training images drawn by seed, normalised; the teacher observed."""
    with np.load(prepare_cifar10(WORK.parent / "cifar10") / "train.npz") as data:
        chosen = np.random.default_rng(seed).choice(len(data["y"]), batches * samples, replace=False)
        x, y = data["x"][chosen], data["y"][chosen]
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.47) / 0.25
    parts = zip(images.split(samples), torch.from_numpy(y.astype(np.int64)).split(samples), strict=True)
    return Setting.of(network(TEACHER), [Batch((a.contiguous(),), b) for a, b in parts], range(inits))


def scores(number: int, look: tuple[int, int, int, int]) -> tuple[float, ...]:
    """Every proxy on one architecture, one thread."""
    torch.set_num_threads(1)
    program, target = network(str(_table()["arch"][number])), profiles.resolve(DEVICE)
    cost = program.cost()
    costs = Costs(cost.parameters, cost.macs, target.predict(program.kernels(), "float32").p50)
    every = tuple(PROXIES.values())
    return values(setting(*look).subject(program, costs, every), every)


def gather(numbers: Sequence[int], look: tuple[int, int, int, int], workers: int) -> NDArray[np.float64]:
    """(architectures, proxies); what is known from before is not computed again."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / f"{'-'.join(map(str, look))}.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    missing = [n for n in numbers if list(known.get(str(n), {})) != list(PROXIES)]
    setting(*look)  # prepares the images once
    start = time.perf_counter()
    for done, (number, found) in enumerate(_computed(missing, look, workers), 1):
        known[str(number)] = dict(zip(PROXIES, found, strict=True))
        if done % 20 == 0 or done == len(missing):
            path.write_text(json.dumps(known))
            print(f"{done}/{len(missing)} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return np.array([list(known[str(n)].values()) for n in numbers])


def _computed(
    numbers: Sequence[int], look: tuple[int, int, int, int], workers: int
) -> Iterator[tuple[int, tuple[float, ...]]]:
    if workers < 2:
        yield from ((n, scores(n, look)) for n in numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from zip(numbers, pool.map(scores, numbers, itertools.repeat(look)), strict=True)


def correlations(table: NDArray[np.float64], accuracy: NDArray[np.float64], score: str) -> dict[str, float]:
    """Kendall's tau-b and Spearman's rho of a score with accuracy."""
    columns = [list(PROXIES).index(name) for name in score.split("+")]
    found = combined(table[:, columns])
    tau, rho = kendalltau(found, accuracy).statistic, spearmanr(found, accuracy).statistic
    return {"kendall": round(float(tau), 4), "spearman": round(float(rho), 4)}


def combinations(most: int = 3) -> list[str]:
    """All scores of up to ``most`` proxies."""
    sizes = range(1, most + 1)
    return ["+".join(names) for size in sizes for names in itertools.combinations(PROXIES, size)]


def ranked(table: NDArray[np.float64], accuracy: NDArray[np.float64], texts: Sequence[str]) -> dict[str, Any]:
    """The correlations of these scores, best first."""
    found = {text: correlations(table, accuracy, text) for text in texts}
    return dict(sorted(found.items(), key=lambda item: -item[1]["kendall"]))


def main() -> int:
    """Score, correlate, print, write."""
    parser = argparse.ArgumentParser(prog="benchmarks.search.nasbench", description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="architectures per half")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--samples", type=int, default=64, help="images per batch")
    parser.add_argument("--inits", type=int, default=3, help="random initialisations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="look at the first half; nothing is stored")
    options = parser.parse_args()
    numbers = halves(options.count, options.seed)[0 if options.tune else 1]
    look = (options.batches, options.samples, options.inits, options.seed)
    start = time.perf_counter()
    table = gather(numbers, look, options.workers)
    seconds = time.perf_counter() - start
    accuracy = _table()["test_accuracy"][numbers].astype(float)
    found = ranked(table, accuracy, combinations())
    for text, row in list(found.items())[: 40 if options.tune else 10]:
        print(f"{text:40s} tau {row['kendall']:.3f}  rho {row['spearman']:.3f}")
    own = correlations(table, accuracy, DEFAULT)
    print(f"default {DEFAULT}: tau {own['kendall']:.3f} rho {own['spearman']:.3f}", "ok" if own["kendall"] >= BAR else "MISSED")
    if not options.tune and options.count >= 500:
        print(facts.write("nasbench", _result(options, seconds, found, own)))
    return 0 if own["kendall"] >= BAR else 1


def _result(options: argparse.Namespace, seconds: float, found: dict[str, Any], own: dict[str, float]) -> dict[str, Any]:
    chosen = {name: getattr(options, name) for name in ("count", "batches", "samples", "inits")}
    return {
        **facts.facts(options.seed), "bar": BAR, "teacher": TEACHER, "device": DEVICE, **chosen, "seconds": round(seconds),
        "default": {"score": DEFAULT, **own},
        "scores": {text: row for text, row in found.items() if text.count("+") < 2 or text == DEFAULT},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
