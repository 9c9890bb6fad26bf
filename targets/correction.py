"""What measurements teach about a roofline: a Gaussian process over kernels, observed through sums.

A kernel takes the roofline's time times exp(g); so does each kind of pointwise op fused into it, of which the prior is
that they are nearly free: what one runtime fuses costs another. g has a Gaussian-process prior over kinds and sizes: an
offset of the device, one per kind, a trend and a smooth function of the logarithms of the sizes. Sums are
timed: whole models, and where the runtime tells, single kernels and the few that it runs in one go. Near the current
estimate the logarithm of a sum is a mean of its kernels' g, weighted by their shares of the time, so every sum is a
linear observation and the posterior has a closed form (Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, section 2.2); shares are updated a few times. Ten totals move the offsets, hundreds, or parts of ten, the shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from compactor.errors import InputError
from compactor.ir.kernels import EPILOGUES, KINDS, Kernel
from compactor.target import Part
from compactor.targets import partial

Floats = NDArray[np.float64]
CALL = len(KINDS)
"""The number of a kind beside the kernels': what a runtime spends once per inference."""
FUSED = CALL + 1
"""The number of the first of `EPILOGUES` as a kind."""
VERSION = 3
"""Of what is kept: fits of another are not read."""
_VECTOR, _ODD = 16, 2.0
_ROUNDS = 10
_OUTPUTS = 5
_NEGLIGIBLE = 1e-4
_PARTS, _FEW = 800, 200
"""How many parts of models a correction learns from at most, and its prior."""
_OUTLIER = 6.0
"""How many times the median error a total left out may be off before it counts as an outlier."""
_PRIOR = {"device": 0.5, "kind": 0.3, "fused": 1.0, "trend": 0.05, "smooth": 0.3, "length": 3.0, "noise": 0.03,
          "part": 0.15}  # fmt: skip
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
    channels, depth = np.where(table[:, 1] > 1, table[:, 1], table[:, 3]), table[:, 2]
    own = np.column_stack([np.log2(table + 1.0), _padding(channels), _padding(depth)])
    sizes = np.zeros((count + 1 + len(owner), own.shape[1]))
    sizes[:count], sizes[count + 1 :, _OUTPUTS] = own, np.log2(fused[owner, epilogue] + 1)
    return Rows(
        np.concatenate([np.array([*kinds, CALL], dtype=np.intp), FUSED + epilogue]), sizes,
        np.concatenate([base, [max(call_us, 1.0)], fused_us[owner, epilogue]]),
        np.concatenate([np.arange(count + 1), owner]),
    )  # fmt: skip


def _padding(sizes: NDArray[Any]) -> Floats:
    """How much of whole vectors of `_VECTOR` numbers would be padding, in doublings, weighed by `_ODD`."""
    whole = np.maximum(sizes, 1.0)
    padding: Floats = _ODD * np.log2(np.ceil(whole / _VECTOR) * _VECTOR / whole)
    return padding


@dataclass(frozen=True)
class Correction:
    """A posterior. ``seen`` are the distinct kernels measured, ``weights`` (seen) what they say of others' g.

    ``explained`` (directions, seen): the squared length of its product with a covariance with what was seen is the
    variance that measurements took away.
    ``calibration`` stretches the posterior's standard deviation so that 90 % of the totals left out lay within.
    ``left_out`` is the log error of each total when it alone is left out.
    """

    seen_kind: NDArray[np.intp]
    seen_sizes: Floats
    explained: Floats
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
        variance = max(own - float(((self.explained @ (share @ cross)) ** 2).sum()), 0.0) + self.prior["noise"] ** 2
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


def learn(observed: Sequence[Rows], ms: Sequence[float], profiled: Sequence[Sequence[Part]] = ()) -> Correction:
    """The posterior after these totals, and what profiles of the same models say of their parts.

    Raises `InputError` for no total, or one that is no positive number.
    """
    if not observed or not all(np.isfinite(m) and m > 0 for m in ms):
        raise InputError(f"cannot fit to {list(ms)[:5]}", "give at least one latency, each a positive number")
    us = np.asarray(ms, dtype=np.float64) * 1e3
    problem = _Problem(observed, us, partial.partial_sums(us, profiled) if profiled else [])
    prior = problem.best_prior() if len(problem.log_us) >= 8 else dict(_PRIOR)
    return problem.posterior(prior)


class _Problem:
    """Totals, then partial sums of their kernels.

    Attributes:
        counts: how often each distinct row is in each of them.
        network: the total that each of them is (a part of).
    """

    def __init__(self, observed: Sequence[Rows], us: Floats, parts: Sequence[partial.Partial]) -> None:
        table = np.concatenate([np.column_stack([r.kind, r.base, r.sizes]) for r in observed])
        distinct, index = np.unique(table, axis=0, return_inverse=True)
        self.kind, self.base, self.sizes = distinct[:, 0].astype(np.intp), distinct[:, 1], distinct[:, 2:]
        self.totals = len(observed)
        rows = np.split(index.ravel(), np.cumsum([len(r.kind) for r in observed])[:-1])
        # Equal parts of one network, as of a layer that repeats, are one observation.
        equal: dict[tuple[int, tuple[int, ...]], list[float]] = {}
        for network, kernels, part_us in parts:
            own = rows[network][np.isin(observed[network].owner, kernels)]
            equal.setdefault((network, tuple(sorted(own))), []).append(float(np.log(part_us)))
        kept = [list(equal)[i] for i in np.random.default_rng(0).permutation(len(equal))[:_PARTS]]
        self.counts = np.zeros((self.totals + len(kept), len(distinct)))
        for i, each in enumerate([*rows, *(np.array(own) for _, own in kept)]):
            np.add.at(self.counts[i], each, 1.0)
        self.network = np.array([*range(self.totals), *(network for network, _ in kept)], dtype=np.intp)
        self.log_us = np.concatenate([np.log(us), [np.mean(equal[key]) for key in kept]])

    def _covariance(self, prior: dict[str, float]) -> Floats:
        return _covariance(self.kind, self.sizes, self.kind, self.sizes, prior)

    def linear(self, g: Floats) -> tuple[Floats, Floats]:
        """Shares (totals, kernels) at g, and what the totals say of their weighted g."""
        times = self.counts * (self.base * np.exp(g))
        total = times.sum(1)
        shares = times / total[:, None]
        return shares, self.log_us - np.log(total) + shares @ g

    def solve(self, prior: dict[str, float], rounds: int = _ROUNDS) -> "_Solved":
        """The posterior under a prior.

        A sum that the others contradict (a hiccup, a network that a converter folded away) counts as noise.
        """
        covariance = self._covariance(prior)
        g = np.zeros(len(self.kind))
        # The first guess at outliers is against the median: one of them would move every other prediction.
        plain = self.linear(g)[1]
        noise = self._doubted(np.abs(plain - self._medians(plain)), prior, least=1.0)
        for _ in range(rounds):
            shares, said = self.linear(g)
            cross = covariance @ shares.T
            inverse: Floats = np.linalg.inv(shares @ cross + np.diag(noise**2)).astype(np.float64)
            alpha = inverse @ said
            used = noise
            noise = self._doubted(np.abs(alpha / np.diag(inverse)), prior, least=0.1)
            g = g + 0.8 * (cross @ alpha - g)
        return _Solved(shares, inverse, alpha, said, used)

    def _medians(self, values: Floats) -> Floats:
        """The median of the totals for each total, that of the parts for each part."""
        found = np.full(len(values), np.median(values[: self.totals]))
        if len(values) > self.totals:
            found[self.totals :] = np.median(values[self.totals :])
        return found

    def _doubted(self, off: Floats, prior: dict[str, float], least: float) -> Floats:
        """The noise of each sum: all that it is off, where that is far more than usual."""
        noise = np.where(np.arange(len(off)) < self.totals, prior["noise"], prior["part"])
        usual = np.maximum(_OUTLIER * self._medians(off), least)
        return np.where(off > usual, np.maximum(off, noise), noise)

    def best_prior(self) -> dict[str, float]:
        """The prior's parameters of highest marginal likelihood, not far from where they start (section 5.4)."""
        solved = self.solve(_PRIOR, rounds=4)
        total = np.arange(len(solved.said)) < self.totals
        kept = np.flatnonzero(solved.noise < 2 * np.where(total, _PRIOR["noise"], _PRIOR["part"]))[: self.totals + _FEW]
        shares, total = solved.shares[kept], total[kept]
        seen = {n: shares @ p @ shares.T for n, p in _parts(self.kind, self.sizes, self.kind, self.sizes).items()}
        seen |= {"noise": np.diag(total * 1.0), **({} if total.all() else {"part": np.diag(~total * 1.0)})}
        found = []
        for length in _LENGTHS:
            near = shares @ _near(self.kind, self.sizes, self.kind, self.sizes, length) @ shares.T
            cost, scales = _likeliest({**seen, "smooth": near}, solved.said[kept])
            cost += np.log(length / _PRIOR["length"]) ** 2 / 2
            found.append((cost, {**_PRIOR, **scales, "length": length}))
        return min(found, key=lambda pair: pair[0])[1]

    def posterior(self, prior: dict[str, float]) -> Correction:
        solved = self.solve(prior)
        left_out, surprise = np.array([self._left_out(solved, i) for i in range(self.totals)]).T
        level = min(1.0, 0.9 * (self.totals + 1) / self.totals)
        calibration = max(float(np.quantile(surprise, level)), 0.5)
        weights, explained = solved.shares.T @ solved.alpha, self._explained(solved, prior)
        return Correction(self.kind, self.sizes, explained, weights, left_out, prior, calibration)

    def _explained(self, solved: "_Solved", prior: dict[str, float]) -> Floats:
        """What takes variance away, but for directions that hardly do: there are far fewer than sums."""
        each = np.linalg.cholesky(solved.inverse).T @ solved.shares
        size, direction = np.linalg.eigh(each @ self._covariance(prior) @ each.T)
        kept: Floats = direction[:, size > _NEGLIGIBLE * size[-1]].T @ each
        return kept

    def _left_out(self, solved: "_Solved", network: int) -> tuple[float, float]:
        """Log error of a total when it and its parts are left out, and in standard deviations (section 5.4.2)."""
        own = np.flatnonzero(self.network == network)
        spread = np.linalg.inv(solved.inverse[np.ix_(own, own)])
        off = float((spread @ solved.alpha[own])[0])
        return -off, abs(off) / float(np.sqrt(spread[0, 0]))


class _Solved(NamedTuple):
    """Shares of the rows in every sum, the sums' inverse covariance, its product with what they say, that, noise."""

    shares: Floats
    inverse: Floats
    alpha: Floats
    said: Floats
    noise: Floats


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
