"""What measurements teach about a roofline: a Gaussian process over kernels, observed through sums.

A kernel takes the roofline's time times exp(g); so does each kind of pointwise op fused into it, of which the prior is
that they are nearly free: what one runtime fuses costs another. g has a Gaussian-process prior over kinds and sizes: an
offset of the device, one per kind, a trend and a smooth function of the logarithms of the sizes. Only whole models are
timed. Near
the current estimate the logarithm of a sum is a mean of its kernels' g, weighted by their shares of the time, so every
total is a linear observation and the posterior has a closed form (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, section 2.2); shares are updated a few times. Ten totals move the offsets, hundreds the shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from compactor.errors import InputError
from compactor.ir.kernels import EPILOGUES, KINDS, Kernel

Floats = NDArray[np.float64]
CALL = len(KINDS)
"""The number of a kind beside the kernels': what a runtime spends once per inference."""
FUSED = CALL + 1
"""The number of the first of `EPILOGUES` as a kind."""
_ROUNDS = 10
_OUTPUTS = 5
_OUTLIER = 6.0
"""How many times the median error a total left out may be off before it counts as an outlier."""
_PRIOR = {"device": 0.5, "kind": 0.3, "fused": 1.0, "trend": 0.05, "smooth": 0.3, "length": 3.0, "noise": 0.03}
"""Standard deviations of g, the length (in doublings of a size), and the noise of one total; what a fit starts from."""
_LENGTHS = (1.5, 2.0, 3.0, 4.5, 6.5)


@dataclass(frozen=True)
class Rows:
    """Kernels, the call and what is fused, as rows: kind, sizes (log2), the prior's microseconds, the kernel's number.

    The call counts as one more kernel.
    """

    kind: NDArray[np.intp]
    sizes: Floats
    base: Floats
    owner: NDArray[np.intp]

    def per_kernel(self, times: Floats) -> Floats:
        """Sums over the rows of each kernel; the call's last."""
        return np.bincount(self.owner, times).astype(np.float64)


def rows(kernels: Sequence[Kernel], base: Floats, call_us: float, fused_us: Floats) -> Rows:
    """The rows of these kernels, which the roofline gives ``base`` microseconds each, and of one call.

    ``fused_us``, shape (kernels, `EPILOGUES`), are the prior's for what is fused.
    """
    table = np.array([(k.rows, k.columns, k.depth, k.groups, k.inputs, k.outputs, k.weights) for k in kernels])
    fused = np.array([k.fused for k in kernels], dtype=np.float64).reshape(-1, len(EPILOGUES))
    return table_rows([KINDS.index(k.kind) for k in kernels], table.reshape(-1, 7), base, call_us, fused, fused_us)


def table_rows(
    kinds: Sequence[int], table: NDArray[Any], base: Floats, call_us: float, fused: Floats, fused_us: Floats
) -> Rows:
    """The same from tables, a row per kernel: rows, columns, depth, groups, inputs, outputs, weights; and ``fused``."""
    owner, epilogue = np.nonzero(fused)
    count = len(kinds)
    sizes = np.zeros((count + 1 + len(owner), 7))
    sizes[:count], sizes[count + 1 :, _OUTPUTS] = np.log2(table + 1.0), np.log2(fused[owner, epilogue] + 1)
    return Rows(
        np.concatenate([np.array([*kinds, CALL], dtype=np.intp), FUSED + epilogue]), sizes,
        np.concatenate([base, [max(call_us, 1.0)], fused_us[owner, epilogue]]),
        np.concatenate([np.arange(count + 1), owner]),
    )  # fmt: skip


@dataclass(frozen=True)
class Correction:
    """A posterior. ``seen`` are the distinct kernels measured, ``shares`` (totals, seen) their weights in each total.

    ``calibration`` stretches the posterior's standard deviation so that 90 % of the totals left out lay within.
    ``left_out`` is the log error of each total when it alone is left out.
    """

    seen_kind: NDArray[np.intp]
    seen_sizes: Floats
    shares: Floats
    inverse: Floats
    weights: Floats
    left_out: Floats
    prior: dict[str, float]
    calibration: float

    def times(self, given: Rows) -> tuple[Floats, float]:
        """Microseconds of every row, and the calibrated standard deviation of the logarithm of their sum."""
        cross = self._cross(given)
        times = given.base * np.exp(cross @ self.weights)
        share = times / times.sum()
        own = share @ _covariance(given.kind, given.sizes, given.kind, given.sizes, self.prior) @ share
        seen = self.shares @ (share @ cross)
        variance = max(own - seen @ self.inverse @ seen, 0.0) + self.prior["noise"] ** 2
        return times, self.calibration * float(np.sqrt(variance))

    def mean(self, given: Rows) -> Floats:
        """Microseconds of every row alone: the first part of `times`, in a fraction of its time."""
        corrected: Floats = given.base * np.exp(self._cross(given) @ self.weights)
        return corrected

    def _cross(self, given: Rows) -> Floats:
        return _covariance(given.kind, given.sizes, self.seen_kind, self.seen_sizes, self.prior)

    def total(self, given: Rows) -> tuple[float, float]:
        """Milliseconds of the sum, and the same deviation."""
        times, deviation = self.times(given)
        return float(times.sum()) / 1e3, deviation


def learn(observed: Sequence[Rows], ms: Sequence[float]) -> Correction:
    """The posterior after these totals. Raises `InputError` for none, or one that is no positive number."""
    if not observed or not all(np.isfinite(m) and m > 0 for m in ms):
        raise InputError(f"cannot fit to {list(ms)[:5]}", "give at least one latency, each a positive number")
    problem = _Problem(observed, np.asarray(ms, dtype=np.float64))
    prior = problem.best_prior() if len(ms) >= 8 else dict(_PRIOR)
    return problem.posterior(prior)


class _Problem:
    def __init__(self, observed: Sequence[Rows], ms: Floats) -> None:
        table = np.concatenate([np.column_stack([r.kind, r.base, r.sizes]) for r in observed])
        distinct, index = np.unique(table, axis=0, return_inverse=True)
        self.kind, self.base, self.sizes = distinct[:, 0].astype(np.intp), distinct[:, 1], distinct[:, 2:]
        owner = np.repeat(np.arange(len(observed)), [len(r.kind) for r in observed])
        self.counts = np.zeros((len(observed), len(distinct)))
        np.add.at(self.counts, (owner, index.ravel()), 1.0)
        self.log_us = np.log(ms * 1e3)

    def _covariance(self, prior: dict[str, float]) -> Floats:
        return _covariance(self.kind, self.sizes, self.kind, self.sizes, prior)

    def linear(self, g: Floats) -> tuple[Floats, Floats]:
        """Shares (totals, kernels) at g, and what the totals say of their weighted g."""
        times = self.counts * (self.base * np.exp(g))
        total = times.sum(1)
        shares = times / total[:, None]
        return shares, self.log_us - np.log(total) + shares @ g

    def solve(self, prior: dict[str, float], rounds: int = _ROUNDS) -> tuple[Floats, Floats, Floats, Floats]:
        """Shares, covariance of the totals' logarithms, its inverse times the observations, the observations.

        A total that the others contradict (a hiccup, a network that a converter folded away) counts as noise.
        """
        covariance = self._covariance(prior)
        g = np.zeros(len(self.kind))
        # The first guess at outliers is against the median: one of them would move every other prediction.
        plain = self.linear(g)[1]
        noise = _doubted(np.abs(plain - np.median(plain)), prior["noise"], least=1.0)
        for _ in range(rounds):
            shares, said = self.linear(g)
            spread: Floats = shares @ covariance @ shares.T + np.diag(noise**2)
            alpha: Floats = np.linalg.solve(spread, said).astype(np.float64)
            off = np.abs(alpha / np.diag(np.linalg.inv(spread)))
            noise = _doubted(off, prior["noise"], least=0.1)
            g = g + 0.8 * (covariance @ shares.T @ alpha - g)
        return shares, spread, alpha, said

    def best_prior(self) -> dict[str, float]:
        """The prior's parameters of highest marginal likelihood, not far from where they start (section 5.4)."""
        shares, spread, _, said = self.solve(_PRIOR)
        kept = np.diag(spread - shares @ self._covariance(_PRIOR) @ shares.T) < 4 * _PRIOR["noise"] ** 2
        parts = _parts(self.kind, self.sizes, self.kind, self.sizes)
        seen = {name: shares[kept] @ part @ shares[kept].T for name, part in parts.items()}
        found = []
        for length in _LENGTHS:
            near = shares[kept] @ _near(self.kind, self.sizes, self.kind, self.sizes, length) @ shares[kept].T
            cost, scales = _likeliest({**seen, "smooth": near, "noise": np.eye(len(near))}, said[kept])
            found.append((cost + np.log(length / _PRIOR["length"]) ** 2 / 2, {**scales, "length": length}))
        return min(found, key=lambda pair: pair[0])[1]

    def posterior(self, prior: dict[str, float]) -> Correction:
        shares, spread, alpha, _ = self.solve(prior)
        inverse: Floats = np.linalg.inv(spread).astype(np.float64)
        # Each one left out, in closed form (section 5.4.2).
        left_out = -alpha / np.diag(inverse)
        surprise = np.abs(left_out) * np.sqrt(np.diag(inverse))
        level = min(1.0, 0.9 * (len(alpha) + 1) / len(alpha))
        calibration = max(float(np.quantile(surprise, level)), 0.5)
        return Correction(self.kind, self.sizes, shares, inverse, shares.T @ alpha, left_out, prior, calibration)


def _doubted(off: Floats, noise: float, least: float) -> Floats:
    """The noise of each total: all that it is off, where that is far more than usual."""
    usual = max(_OUTLIER * float(np.median(off)), least)
    return np.where(off > usual, np.maximum(off, noise), noise)


def _likeliest(parts: dict[str, Floats], said: Floats) -> tuple[float, dict[str, float]]:
    """The standard deviation of each part of a covariance under which ``said`` is likeliest, and how unlikely it is."""
    names, stack = list(parts), np.stack(list(parts.values()))
    start = np.log([_PRIOR[n] for n in names])

    def cost(x: Floats) -> tuple[float, Floats]:
        scales = np.exp(2 * x)
        inverse = np.linalg.inv(np.tensordot(scales, stack, 1))
        alpha = inverse @ said
        fit = said @ alpha / 2 - np.linalg.slogdet(inverse)[1] / 2
        slope = scales * (np.tensordot(stack, inverse) - (stack @ alpha) @ alpha)
        return float(fit + ((x - start) ** 2).sum() / 2), slope + x - start

    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(s - 3, s + 2) for s in start])
    return float(found.fun), dict(zip(names, map(float, np.exp(found.x)), strict=True))


def _parts(kind: Any, sizes: Floats, other_kind: Any, other_sizes: Floats) -> dict[str, Floats]:
    """The covariance's parts but the smooth one, each to be scaled."""
    same = (kind[:, None] == other_kind[None, :]).astype(np.float64)
    fused = (kind >= FUSED)[:, None]
    return {
        "device": np.ones_like(same), "kind": same * ~fused, "fused": same * fused,
        "trend": same * (sizes @ other_sizes.T),
    }  # fmt: skip


def _near(kind: Any, sizes: Floats, other_kind: Any, other_sizes: Floats, length: float) -> Floats:
    squares = (sizes**2).sum(1)[:, None] + (other_sizes**2).sum(1)[None, :] - 2 * (sizes @ other_sizes.T)
    near: Floats = (kind[:, None] == other_kind[None, :]) * np.exp(-np.maximum(squares, 0) / (2 * length**2))
    return near


def _covariance(kind: Any, sizes: Floats, other_kind: Any, other_sizes: Floats, prior: dict[str, float]) -> Floats:
    same = kind[:, None] == other_kind[None, :]
    trend = sizes @ other_sizes.T
    squares = (sizes**2).sum(1)[:, None] + (other_sizes**2).sum(1)[None, :] - 2 * trend
    near = np.exp(np.minimum(-squares / (2 * prior["length"] ** 2), 0))
    offset = np.where(kind >= FUSED, prior["fused"], prior["kind"]) ** 2
    own = offset[:, None] + prior["trend"] ** 2 * trend + prior["smooth"] ** 2 * near
    covariance: Floats = prior["device"] ** 2 + same * own
    return covariance
