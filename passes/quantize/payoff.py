"""Which kernels are worth rounding: predicted time in integers against float, and what conversions cost between."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from compactor.ir.program import Program
from compactor.ir.quantplan import QuantPlan
from compactor.ir.workload import Flow
from compactor.target import Target, native

_UNITS = 100_000_000
"""Capacities of a flow are whole numbers, and their sum must stay below 2^31."""


@dataclass(frozen=True)
class Layer:
    """A kernel that reads rounded values: the ``nodes`` that do, and its microseconds in float and in int8."""

    name: str
    nodes: tuple[str, ...]
    float_us: float
    int8_us: float

    @property
    def gain(self) -> float:
        """Microseconds that int8 saves; negative where it costs."""
        return self.float_us - self.int8_us


@dataclass(frozen=True)
class Conversion:
    """Rounding a value by itself: due where ``maker`` is a float layer and any of ``readers`` an int8 one."""

    maker: int
    readers: tuple[int, ...]
    us: float


@dataclass(frozen=True)
class Payoff:
    """The layers of a Program under a plan, and the conversions between them by their numbers.

    ``others`` are kernels that read nothing rounded; ``needs`` (a, b): layer a reads integers that layer b hands on.
    """

    layers: tuple[Layer, ...]
    conversions: tuple[Conversion, ...]
    others: tuple[str, ...] = ()
    needs: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def predicted(program: Program, plan: QuantPlan, target: Target, between: str) -> "Payoff":
        """As the target predicts it; float layers are in ``between``. Raises `UnsupportedError` for precisions."""
        flow = Flow.of(program, plan)
        between = native(target, between)
        floats, integers = (target.breakdown(flow.kernels, p) for p in (between, "int8"))
        order = sorted(flow.readers)
        layers = [Layer(flow.kernels[i].node, flow.readers[i], floats[i].us, integers[i].us) for i in order]
        number = {kernel: layer for layer, kernel in enumerate(order)}
        inner = [r for r in flow.rounded if r.maker in number]
        times = target.breakdown([r.conversion() for r in inner], between)
        conversions = [
            Conversion(number[r.maker], tuple(number[i] for i in r.readers), t.us)  # type: ignore[index]
            for r, t in zip(inner, times, strict=True)
        ]
        others = [k.node for i, k in enumerate(flow.kernels) if i not in number]
        needs = [(number[a], number[b]) for a, b in flow.needs.items() if b in number]
        return Payoff(tuple(layers), tuple(conversions), tuple(others), tuple(needs))

    def total(self, chosen: Collection[int], conversions: float = 1.0) -> float:
        """Microseconds of all layers when those ``chosen`` are in int8, conversions counted this many times."""
        layers = sum(layer.int8_us if i in chosen else layer.float_us for i, layer in enumerate(self.layers))
        due = [c.us for c in self.conversions if c.maker not in chosen and not set(chosen).isdisjoint(c.readers)]
        return layers + conversions * sum(due)

    def cheapest(self, exact: Collection[str] = (), conversions: float = 1.0) -> frozenset[int]:
        """The int8 layers of the least `total`, the fewest of equals; layers of nodes in ``exact`` stay float.

        A minimum cut, so it is the optimum: a layer is on the side of the source when in int8 (two labels, as Greig,
        Porteous and Seheult 1989; a value with several readers is converted once, by a vertex of its own).
        """
        count = len(self.layers)
        source, sink = count + len(self.conversions), count + len(self.conversions) + 1
        arcs: list[tuple[int, int, float]] = [(a, b, np.inf) for a, b in self.needs]
        for i, layer in enumerate(self.layers):
            if not set(layer.nodes).isdisjoint(exact):
                arcs.append((i, sink, np.inf))
            elif layer.gain > 0:
                arcs.append((source, i, layer.gain))
            else:
                arcs.append((i, sink, -layer.gain))
        for value, c in enumerate(self.conversions, count):
            arcs += [(reader, value, np.inf) for reader in c.readers if reader != c.maker]
            arcs.append((value, c.maker, conversions * c.us))
        return frozenset(i for i in _source_side(arcs, source, sink) if i < count)

    def closed(self, chosen: Collection[int]) -> frozenset[int]:
        """Without the layers that need one which is not chosen."""
        left = set(chosen)
        while lacking := {a for a, b in self.needs if a in left and b not in left}:
            left -= lacking
        return frozenset(left)

    def layers_of(self, nodes: Collection[str]) -> frozenset[int]:
        """The layers that hold any of these nodes."""
        return frozenset(i for i, layer in enumerate(self.layers) if not set(layer.nodes).isdisjoint(nodes))

    def nodes(self, chosen: Collection[int]) -> list[str]:
        """The nodes of all other layers: what a plan goes without when only those ``chosen`` are in int8."""
        return [node for i, layer in enumerate(self.layers) if i not in chosen for node in layer.nodes]


def _source_side(arcs: Sequence[tuple[int, int, float]], source: int, sink: int) -> set[int]:
    """The vertices that a minimum cut leaves with the source, as few as possible; infinite arcs are never cut."""
    whole = sum(us for start, _, us in arcs if start == source)
    if whole == 0:
        return {source}
    starts, ends = (np.array([arc[i] for arc in arcs]) for i in (0, 1))
    # More than all that the source gives is as good as infinite.
    sizes = np.minimum(np.array([us for _, _, us in arcs]) / whole * _UNITS, 2 * _UNITS).round().astype(np.int32)
    capacity = csr_array(coo_array((sizes, (starts, ends)), shape=(sink + 1, sink + 1)), dtype=np.int32)
    left = csr_array(capacity - maximum_flow(capacity, source, sink).flow)
    left.eliminate_zeros()
    return {int(i) for i in breadth_first_order(left, source, return_predecessors=False)}
