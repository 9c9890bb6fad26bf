"""What a target has to predict of a Program: its kernels, the precision of each, and what converts between them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from compactor.ir.cost import homes, shapes_of
from compactor.ir.kernel_ops import elements
from compactor.ir.kernels import EPILOGUES, Kernel
from compactor.ir.program import Program
from compactor.ir.quantizing import leaves, split
from compactor.ir.quantplan import QuantPlan

PRODUCTS = ("conv", "depthwise", "linear", "matmul")
"""Kinds of kernels that have integer forms."""


@dataclass(frozen=True)
class Rounded:
    """An activation quantizer among kernels, by their numbers: who makes the value and who reads it rounded.

    ``elements`` of the value at batch 1; ``maker`` is None for an input of the Program.
    """

    source: str
    maker: int | None
    readers: tuple[int, ...]
    elements: int

    def conversion(self) -> Kernel:
        """Rounding by itself, as a kernel of its own: one more clamp."""
        fused = tuple(self.elements if kind == "relu" else 0 for kind in EPILOGUES)
        return Kernel("pointwise", 0, self.elements, 0, self.elements, self.source, fused=fused)


@dataclass(frozen=True)
class Flow:
    """A plan's quantizers among the kernels of its Program; ``readers`` are the plan's nodes in each kernel.

    ``needs``: kernels that read what another, such as a pooling, hands on in integers without rounding it again.
    """

    kernels: tuple[Kernel, ...]
    readers: Mapping[int, tuple[str, ...]]
    rounded: tuple[Rounded, ...]
    needs: Mapping[int, int]

    @staticmethod
    def of(program: Program, plan: QuantPlan) -> "Flow":
        """For a Program without quantizers and a plan for it."""
        inside, feeding = homes(program)
        home, maker = {**feeding, **inside}, _makers(program.graph, inside)
        sizes = {n.name: elements(shape) for n, shape in shapes_of(program.values).items()}
        readers: dict[int, dict[str, None]] = {}
        rounded = []
        for q in plan:
            nodes = [e.node for e in q.edges if e.node in home]
            for node in nodes:
                readers.setdefault(home[node], {})[node] = None
            if not q.weight:
                own = tuple(dict.fromkeys(home[node] for node in nodes))
                rounded.append(Rounded(q.source, maker.get(q.source), own, sizes.get(q.source, 0)))
        named = {i: tuple(names) for i, names in readers.items()}
        return Flow(program.kernels(), named, tuple(rounded), _needs(program.graph, plan, inside))


def _makers(graph: fx.Graph, inside: Mapping[str, int]) -> dict[str, int]:
    """By the names of nodes, the kernel that makes their value, also behind views."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        made = [found[n.name] for n in node.all_input_nodes if n.name in found]
        if node.name in inside or made:
            found[node.name] = inside.get(node.name, made[0] if made else 0)
    return found


def _needs(graph: fx.Graph, plan: QuantPlan, inside: Mapping[str, int]) -> dict[int, int]:
    """By products that read what no quantizer rounds for them: the kernel that hands it on."""
    rounded = {e.node for q in plan if not q.weight for e in q.edges}
    products = {e.node for q in plan if q.weight for e in q.edges if e.node in inside}
    found = {}
    for product in (n for n in graph.nodes if n.name in products):
        node, given = product, leaves(product)
        while node.name not in rounded and given:
            node, given = given[0], leaves(given[0])
            if node.name in inside:
                found[inside[product.name]] = inside[node.name]
                break
    return found


def workload(program: Program) -> tuple[tuple[Kernel, ...], str | tuple[str, ...]]:
    """The kernels at batch 1 and their precision: one for all, or one for each where an int8 Program mixes them.

    Then products without a quantizer compute in ``program.between``, and what rounds their results for others is one
    kernel more: runtimes that fuse it take less.
    """
    kernels = program.kernels()
    if program.precision != "int8":
        return kernels, program.precision
    flow = Flow.of(*split(program))
    exact = {i for i, k in enumerate(flow.kernels) if k.kind in PRODUCTS and k.node not in flow.readers.get(i, ())}
    if not exact:
        return kernels, "int8"
    conversions = [r.conversion() for r in flow.rounded if r.maker in exact]
    precisions = [program.between if i in exact else "int8" for i in range(len(kernels))]
    return (*flow.kernels, *conversions), (*precisions, *[program.between] * len(conversions))
