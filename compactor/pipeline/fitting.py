"""Fits a target's latency model on the device itself: random networks, lowered as builds are, timed one by one."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from compactor.errors import CompactorError, InputError, UnsupportedError
from compactor.frontend import export
from compactor.pipeline.bench import Bench, Sample, prepare, sample
from compactor.pipeline.context import Progress, Silent
from compactor.pipeline.request import backend_of
from compactor.pipeline.suite import network
from compactor.target import Target

REFERENCE = 7
"""Seed of the network that every measurement is interleaved with."""
NOISY = 1.3
"""How far the reference's speed may move (5th to 95th percentile) before a fit warns."""
_WAVE = 4
"""Networks that each process prepares before they are timed, when nothing else runs."""


def fit(
    target: Target, *, seconds: float, seed: int = 0, samples: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Time random networks on this device and keep what they teach; the facts kept with the fit.

    ``seconds`` are the time there is, ``samples`` the largest number of networks. Raises `UnsupportedError` when the
    target is not present, `InputError` when nothing could be measured.
    """
    bench = observe(target, seconds=seconds, seed=seed, samples=samples, progress=progress or Silent())
    observed = bench.observations()
    if not observed:
        raise InputError(f"nothing could be measured on {target.name} in {seconds:g} s", "give it more --minutes")
    low, high = (float(v) for v in np.percentile(bench.drifts(), (5, 95)))
    facts: dict[str, Any] = {
        "networks": len({o.kernels for o in observed}), "parts": sum(len(o.parts) for o in observed), "seed": seed,
        "drift": [round(low, 3), round(high, 3)], "reference_ms": round(bench.usual, 4),
    }  # fmt: skip
    if high / low > NOISY:
        facts["warning"] = (
            f"the speed of this machine moved by {high / low - 1:.0%} meanwhile: close other programs and fit again"
        )
    return target.learn(observed, facts)


def observe(target: Target, *, seconds: float, seed: int, progress: Progress, samples: int | None = None) -> Bench:
    """A bench that has timed random networks in every precision of the target until the time was over.

    Raises `UnsupportedError` when the target is not present.
    """
    if not (target.present and backend_of(target).installed()):
        raise UnsupportedError(
            f"target {target.name} is not present on this machine, so nothing can be measured",
            "run compactor targets fit on the device itself",
        )
    start = time.monotonic()
    with TemporaryDirectory(prefix="compactor-") as name:
        bench = Bench(target, reference(target, Path(name)))
        for each in _samples(target, Path(name), 1000 * (seed + 1), samples):
            spent = time.monotonic() - start
            if spent >= seconds:
                break
            progress.update(int(spent), int(seconds), "measuring")
            bench.measure(each)
            shutil.rmtree(each.lowered.folder)
    return bench


def reference(target: Target, folder: Path) -> Sample:
    """The network that every measurement is interleaved with."""
    program = prepare(export(*network(REFERENCE)), target, folder)
    return sample(program, target.precisions[0], target, folder)


def _samples(target: Target, folder: Path, seed: int, count: int | None) -> Iterator[Sample]:
    """Networks by seed in every precision, prepared in waves on all cores: none is while others are timed."""
    workers = min(os.cpu_count() or 1, count or 64)
    end = None if count is None else seed + count
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        while end is None or seed < end:
            wave = [s for s in range(seed, seed + _WAVE * workers) if end is None or s < end]
            ready = list(pool.map(_prepared, [target] * len(wave), wave, [folder] * len(wave)))
            yield from (each for samples in ready for each in samples)
            seed = wave[-1] + 1


def _prepared(target: Target, seed: int, folder: Path) -> list[Sample]:
    """One network in every precision; what cannot be made is left out: one odd network less."""
    found = []
    with suppress(CompactorError):
        program = prepare(export(*network(seed)), target, folder)
        for precision in target.precisions:
            with suppress(CompactorError):
                found.append(sample(program, precision, target, folder))
    return found
