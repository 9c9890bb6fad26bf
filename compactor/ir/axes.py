"""Labels of tensor axes, and the ties between them.

Every index of every prunable axis carries an integer id. Operations tie ids together ("these must be kept or removed
together") or pin them ("these must be kept"); the connected components are the units of a search space. A tensor
dimension without ids is fixed: batch, sequence, image height, a model's input.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Cluster:
    """Dimensions labelled together. ``ids`` has one axis per entry of ``dims``, in that order.

    One dimension is the usual case; a view that splits (H*D) into (H, D) labels both together until an operation
    needs one of them alone.
    """

    dims: tuple[int, ...]
    ids: Ids


@dataclass(frozen=True, eq=False)
class Axes:
    """Labels of one tensor: dimensions in no cluster are fixed."""

    shape: Shape
    clusters: tuple[Cluster, ...] = ()

    def cluster(self, dim: int) -> Cluster | None:
        """The cluster that labels a dimension, or None where it is fixed."""
        dim %= max(len(self.shape), 1)
        return next((c for c in self.clusters if dim in c.dims), None)

    def without(self, cluster: Cluster | None) -> tuple[Cluster, ...]:
        """All clusters but this one."""
        return tuple(c for c in self.clusters if c is not cluster)

    def remap(self, mapping: dict[int, int], shape: Shape) -> "Axes":
        """The same labels on other dimension numbers; every labelled dimension must be in ``mapping``."""
        return Axes(shape, tuple(Cluster(tuple(mapping[d] for d in c.dims), c.ids) for c in self.clusters))


def at(ids: Ids, index: int, axis: int) -> Ids:
    """The labels at one position of an axis, which is gone."""
    return np.asarray(ids.take(index, axis=axis))


def invariant(ids: Ids, axis: int) -> bool:
    """Whether labels do not depend on the position along ``axis``."""
    return bool((ids == ids.take([0], axis=axis)).all())


@dataclass(frozen=True)
class Pin:
    """Ids that must be kept, by the graph node at which, and why."""

    ids: Ids
    node: str
    reason: str


class Coupling:
    """Collects ties and pins, then solves them into components."""

    def __init__(self) -> None:
        self.size = 0
        self._left: list[Ids] = []
        self._right: list[Ids] = []
        self.origins: list[tuple[int, str]] = []
        self.pins: list[Pin] = []
        self._products: list[tuple[Ids, str]] = []
        self._copies: list[tuple[int, int]] = []

    def fresh(self, count: int, *, copies: bool = False) -> Ids:
        """``count`` new ids; ``copies`` marks indices that all hold the same values."""
        if copies:
            self._copies.append((self.size, self.size + count))
        self.size += count
        return np.arange(self.size - count, self.size)

    def is_copies(self, ids: Ids) -> bool:
        """Whether these ids were made as copies of one index."""
        return any(low <= ids.flat[0] < high for low, high in self._copies)

    def tie(self, left: Ids, right: Ids, node: str) -> None:
        """Index by index (with broadcasting), these are kept or removed together."""
        a, b = np.broadcast_arrays(left, right)
        self._left.append(a.ravel())
        self._right.append(b.ravel())
        self.origins.append((a.size, node))

    def pin(self, ids: Ids, node: str, reason: str) -> None:
        """These must be kept."""
        self.pins.append(Pin(ids.ravel(), node, reason))

    def product(self, ids: Ids, node: str) -> None:
        """What is kept of this array must be a product of index sets, one per axis."""
        self._products.append((ids, node))

    def solve(self) -> Ids:
        """Component number of every id. Products that are not yet rectangular keep their longest axis free."""
        while True:
            components = self._components()
            fates = self._fates(components)
            pending = [p for p in self._products if not self._rectangular(fates[p[0]])]
            if not pending:
                return components
            for ids, node in pending:
                free = [a for a in range(ids.ndim) if not invariant(fates[ids], a)]
                keep = max(free, key=lambda a: (ids.shape[a], -a))
                for axis in free:
                    if axis != keep:
                        self.tie(ids, ids.take([0], axis=axis), node)

    def _fates(self, components: Ids) -> Ids:
        """Component number of every id, one for all that are pinned: they stay together."""
        pinned = np.zeros(int(components.max(initial=-1)) + 1, bool)
        for pin in self.pins:
            pinned[components[pin.ids]] = True
        return np.where(pinned[components], -1, components)

    @staticmethod
    def _rectangular(components: Ids) -> bool:
        return sum(not invariant(components, axis) for axis in range(components.ndim)) <= 1

    def _components(self) -> Ids:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        left = np.concatenate(self._left) if self._left else np.zeros(0, np.int64)
        right = np.concatenate(self._right) if self._right else np.zeros(0, np.int64)
        ones = np.ones(len(left), np.int8)
        matrix = coo_array((ones, (left, right)), shape=(self.size, self.size))
        labels: Ids = connected_components(matrix, directed=False)[1].astype(np.int64)
        return labels

    def edges(self) -> Iterable[tuple[Ids, Ids, str]]:
        """All ties, with the node that made each."""
        for a, b, (_, node) in zip(self._left, self._right, self.origins, strict=True):
            yield a, b, node


def project(alive: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Which positions along one axis hold anything kept."""
    others: Any = tuple(a for a in range(alive.ndim) if a != axis)
    kept: NDArray[np.bool_] = alive.any(axis=others)
    return kept


def factors(copies: Ids, units: Ids) -> list[Ids] | None:
    """How often each index of every axis is kept, if ``copies``, how often each element is, is their outer product.

    ``units``: the component of each element. Where all are repeated alike, the axis along which these differ repeats.
    """
    if copies.ndim == 1:
        return [copies]
    counts = [project(copies > 0, axis).astype(np.int64) for axis in range(copies.ndim)]
    if copies.max(initial=0) > 1:
        axes = [a for a in range(copies.ndim) if not invariant(copies, a)] or varying(units)
        if len(axes) != 1:
            return None
        counts[axes[0]] = copies.max(axis=tuple(a for a in range(copies.ndim) if a != axes[0]))
    return counts if (reduce(np.multiply.outer, counts) == copies).all() else None


def varying(units: Ids) -> list[int]:
    """The axes along which an array differs."""
    return [axis for axis in range(units.ndim) if not invariant(units, axis)]


def line(units: Ids, axis: int) -> Ids:
    """The first line of an array along one axis."""
    return np.moveaxis(units, axis, 0).reshape(units.shape[axis], -1)[:, 0]


def runs(units: Ids) -> list[Ids]:
    """The indices of an axis, cut where the unit changes."""
    return np.split(np.arange(len(units)), np.flatnonzero(np.diff(units)) + 1)


def repeated(counts: Ids, units: Ids) -> Ids:
    """The indices of an axis as they are kept, ``counts`` times each.

    Indices of one unit that lie together repeat together: copies of a head stand side by side, each in its own order,
    so that views still split the axis between units.
    """
    if counts.max(initial=0) <= 1:
        return counts.nonzero()[0]
    return np.concatenate([np.tile(run, counts[run[0]]) for run in runs(units)])
