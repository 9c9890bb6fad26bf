"""Corrections: few totals move offsets, many the shape; never silent about how sure they are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from compactor.errors import InputError
from compactor.ir.kernels import EPILOGUES, Kernel
from compactor.target import Part
from compactor.targets import correction
from compactor.targets.fits import Fit

Networks = list[tuple[correction.Rows, float]]


def _network(generator: np.random.Generator) -> tuple[Kernel, ...]:
    kernels = []
    for i in range(int(generator.integers(3, 20))):
        rows, columns, depth = (int(2**v) for v in generator.uniform(3, 10, 3))
        kind = ("conv", "linear", "pointwise")[int(generator.integers(3))]
        macs = 0 if kind == "pointwise" else rows * columns * depth
        kernels.append(
            Kernel(kind, macs, rows * depth, columns * depth, rows * columns, f"k{i}", 1, rows, columns, depth)
        )
    return tuple(kernels)


def _rows(kernels: tuple[Kernel, ...]) -> correction.Rows:
    fused = np.full((len(kernels), len(EPILOGUES)), 0.5)
    return correction.rows(kernels, _roofline(kernels), 10, fused)


def _roofline(kernels: tuple[Kernel, ...]) -> NDArray[np.float64]:
    return np.array([5 + k.macs / 1e4 + (k.inputs + k.outputs) / 1e3 for k in kernels])


def _truth(kernels: tuple[Kernel, ...]) -> NDArray[np.float64]:
    """Microseconds on a device that is slower throughout, worst at convolutions with few rows."""
    factor = [1.5 * (1.6 - 0.05 * np.log2(k.rows) if k.kind == "conv" else 1.1) for k in kernels]
    return _roofline(kernels) * factor


def _sample(count: int, seed: int, noise: float = 0.01) -> Networks:
    return [(rows, ms) for rows, ms, _ in _profiles(count, seed, noise)]


def _profiles(count: int, seed: int, noise: float = 0.01) -> list[tuple[correction.Rows, float, list[Part]]]:
    """Networks, their milliseconds, and each kernel's time from a runtime that adds 3 microseconds to every node."""
    generator = np.random.default_rng(seed)
    found = []
    for kernels in [_network(generator) for _ in range(count)]:
        us = _truth(kernels)
        ms = float((us.sum() + 30) / 1e3 * np.exp(noise * generator.normal()))
        found.append((_rows(kernels), ms, [Part((i,), float(t) + 3, 1) for i, t in enumerate(us)]))
    return found


def _errors(model: correction.Correction, held_out: Networks) -> NDArray[np.float64]:
    return np.array([abs(model.total(rows)[0] / ms - 1) for rows, ms in held_out])


def _learned(networks: Networks) -> correction.Correction:
    return correction.learn([r for r, _ in networks], [ms for _, ms in networks])


def test_ten_totals_help_and_more_help_more() -> None:
    held_out = _sample(60, 1)
    before = np.median([abs(rows.base.sum() / 1e3 / ms - 1) for rows, ms in held_out])
    few, many = (np.median(_errors(_learned(_sample(n, 2)), held_out)) for n in (10, 120))
    assert many < 0.03 and many < few < 0.15 < before


def test_profiles_of_few_networks_teach_the_shape() -> None:
    held_out, (rows, ms, parts) = _sample(60, 1), zip(*_profiles(12, 2), strict=True)
    plain, profiled = correction.learn(rows, ms), correction.learn(rows, ms, parts)
    assert np.median(_errors(profiled, held_out)) < 0.5 * np.median(_errors(plain, held_out))
    inside = [abs(np.log(p / t)) <= wide for (p, wide), t in ((profiled.total(r), t) for r, t in held_out)]
    assert np.mean(inside) >= 0.7


def test_the_interval_holds_nine_of_ten() -> None:
    model, held_out = _learned(_sample(80, 3)), _sample(200, 4)
    inside = [abs(np.log(p / ms)) <= wide for (p, wide), ms in ((model.total(r), ms) for r, ms in held_out)]
    assert 0.8 <= np.mean(inside) <= 0.99


def test_an_outlier_does_not_spoil_the_rest() -> None:
    networks = _sample(40, 9)
    rows, ms = networks[0]
    spoiled = _learned([(rows, ms / 1000), *networks[1:]])
    held_out = _sample(60, 1)
    assert np.median(_errors(spoiled, held_out)) < 1.3 * np.median(_errors(_learned(networks[1:]), held_out)) + 0.005


def test_what_is_unlike_all_that_was_seen_is_less_certain() -> None:
    model = _learned(_sample(80, 5))
    near, far = _network(np.random.default_rng(6)), (Kernel("attention", 10**8, 10**6, 0, 10**6, "a", 8, 512, 512, 64),)
    assert model.total(_rows(far))[1] > 2 * model.total(_rows(near))[1]


@pytest.mark.parametrize("ms", [[], [0.0], [float("nan")], [-1.0]])
def test_latencies_must_be_positive(ms: list[float]) -> None:
    with pytest.raises(InputError, match="positive number"):
        correction.learn([_rows(_network(np.random.default_rng(0)))] * len(ms), ms)


def test_a_fit_is_kept(tmp_path: Path) -> None:
    model = _learned(_sample(12, 7))
    path = Fit({"int8": model}, {"networks": 12}).save(tmp_path / "fits" / "x.safetensors")
    loaded = Fit.load(path)
    rows, _ = _sample(1, 8)[0]
    assert loaded.facts == {"networks": 12} and loaded.corrections["int8"].total(rows) == model.total(rows)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_fit_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors is no fit"):
        Fit.load(path)
