"""The sizes of all values of a search space as functions of how much of each group is kept."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compactor.ir.axes import Axes, Cluster, invariant
from compactor.ir.subnet import Subnet
from compactor.ir.tape import Numbers, Tape

if TYPE_CHECKING:
    from compactor.ir.analysis import AxesTree
    from compactor.ir.space import SearchSpace


class Sizes:
    """Every size that can change, as a variable.

    Almost all are sums over groups: a constant plus a number of indices per kept unit. Where it matters which units
    are kept, as for a view that labels two choices together, the variable is counted from the kept indices.
    """

    def __init__(self, space: "SearchSpace") -> None:
        self.space = space
        self._group = np.full(int(space.analysis.components.max(initial=-1)) + 1, -1)
        for number, group in enumerate(space.groups):
            self._group[list(group.units)] = number
        self._number = {g.name: i for i, g in enumerate(space.groups)}
        self._whole = np.array([g.size for g in space.groups], np.int64)
        self._variables: dict[Any, int] = {}
        self._rows: list[tuple[int, dict[int, int]]] = []
        self._counted: list[tuple[int, Axes, int]] = []
        self.shapes = {node: self._visit(axes) for node, axes in space.analysis.axes.items()}
        """Per node, per dimension: (size, variable or None where it is fixed); lists for several results."""
        self._base = np.array([base for base, _ in self._rows], np.int64)
        self._per_unit = np.zeros((len(self._rows), len(space.groups)), np.int64)
        for i, (_, units) in enumerate(self._rows):
            self._per_unit[i, list(units)] = list(units.values())

    def of(self, subnet: Subnet) -> Numbers:
        """The value of every variable."""
        kept = self._whole.copy()
        for name, units in subnet.kept:
            kept[self._number[name]] = len(units)
        values: Numbers = self._base + self._per_unit @ kept
        if self._counted:
            copies = self.space.copies(subnet)
            for variable, axes, dim in self._counted:
                found = self.space.counts(axes, copies)[dim]
                values[variable] = axes.shape[dim] if found is None else int(found.sum())
        return values

    def expected(self, keep: Tensor) -> Tensor:
        """The expected value of every variable, differentiable.

        ``keep``: the probability of every unit to be kept, float64, group by group. Of a group at least one unit is
        kept in any choice, so that no size gets below that. An index that several units hold is kept with the highest
        of their probabilities.
        """
        kept = self._summed(keep).clamp(min=1)
        values = torch.from_numpy(self._base).to(keep) + torch.from_numpy(self._per_unit).to(keep) @ kept
        if not self._counted:
            return values
        units = torch.tensor([u for g in self.space.groups for u in g.units])
        alive = keep.new_ones(len(self._group)).index_copy(0, units, keep)
        counts = [self._count(axes, dim, alive) for _, axes, dim in self._counted]
        return values.index_copy(0, torch.tensor([v for v, _, _ in self._counted]), torch.stack(counts))

    def spread(self, keep: Tensor) -> Tensor:
        """The standard deviation of every variable, units being kept independently; arguments as in `expected`.

        Variables that are counted, which few are, count as certain.
        """
        variance = self._summed(keep * (1 - keep))
        return (torch.from_numpy(self._per_unit).to(keep).square() @ variance).sqrt()

    def _summed(self, units: Tensor) -> Tensor:
        """The sum over the units of each group."""
        owner = torch.from_numpy(np.repeat(np.arange(len(self._whole)), self._whole))
        return units.new_zeros(len(self._whole)).index_add(0, owner, units)

    def _count(self, axes: Axes, dim: int, alive: Tensor) -> Tensor:
        """The expected number of indices of a dimension; ``alive``: the probability of every component."""
        cluster = next(c for c in axes.clusters if dim in c.dims)
        found = alive[torch.from_numpy(self.space.analysis.components[cluster.ids])]
        others = [i for i, d in enumerate(cluster.dims) if d != dim]
        return (found.amax(others) if others else found).sum().clamp(min=1)

    def traced(self, tape: Tape, shape: Any) -> Any:
        """The shape of a node, as in `shapes`, in sizes on a tape."""
        if shape is None:
            return None
        if isinstance(shape, list):
            return [self.traced(tape, s) for s in shape]
        return tuple(size if variable is None else tape.variable(variable, size) for size, variable in shape)

    def _visit(self, axes: "AxesTree") -> Any:
        if axes is None:
            return None
        if isinstance(axes, list):
            return [self._visit(a) for a in axes]
        variables: list[int | None] = [None] * len(axes.shape)
        for cluster in axes.clusters:
            for axis, dim in enumerate(cluster.dims):
                variables[dim] = self._variable(axes, cluster, axis)
        return tuple(zip(axes.shape, variables, strict=True))

    def _variable(self, axes: Axes, cluster: Cluster, axis: int) -> int | None:
        units = self.space.analysis.components[cluster.ids]
        groups = self._group[units]
        if (groups < 0).all():
            return None
        others = [a for a in range(units.ndim) if a != axis]
        if all(invariant(units, a) for a in others):
            line = units[tuple(slice(None) if a == axis else 0 for a in range(units.ndim))]
            row = self._row(line)
            if row is not None:
                return self._named((row[0], tuple(sorted(row[1].items()))), row)
        elif sum(not invariant(units, a) for a in range(units.ndim)) == 1 and self._some_whole(units):
            return None  # kept whole as long as any unit of the other axis is
        variable = self._named((units.tobytes(), units.shape, axis), (0, {}))
        if all(v != variable for v, _, _ in self._counted):
            self._counted.append((variable, axes, cluster.dims[axis]))
        return variable

    def _named(self, key: Any, row: tuple[int, dict[int, int]]) -> int:
        if key not in self._variables:
            self._variables[key] = len(self._rows)
            self._rows.append(row)
        return self._variables[key]

    def _row(self, units: NDArray[np.int64]) -> tuple[int, dict[int, int]] | None:
        """(fixed indices, indices per kept unit of each group); None where units of a group count differently."""
        groups = self._group[units]
        found: dict[int, int] = {}
        for group in np.unique(groups[groups >= 0]).tolist():
            members, counts = np.unique(units[groups == group], return_counts=True)
            if len(members) != self._whole[group] or (counts != counts[0]).any():
                return None
            found[group] = int(counts[0])
        return int((groups < 0).sum()), found

    def _some_whole(self, units: NDArray[np.int64]) -> bool:
        """Whether something of these units is kept in every choice: a fixed one, or all of one group."""
        row = self._row(units.ravel())
        return row is not None and (row[0] > 0 or bool(row[1]))
