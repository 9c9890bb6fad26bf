"""Grouping of graph nodes into the kernels that a runtime fuses, from the graph and shapes alone."""

from dataclasses import dataclass, field

from torch import fx

from compactor.ir.kernel_ops import (
    FREE,
    PERMUTE,
    POINTWISE,
    REDUCTION,
    WINDOW,
    Shapes,
    elements,
    epilogue,
    is_zero_pad,
    keeps_rows,
    op_class,
    op_name,
    products,
)
from compactor.ir.kernels import EPILOGUES, Kernel

_OPEN = ("conv", "depthwise", "linear", "matmul", "norm", "embedding", "pointwise")
_ABSORBING = ("linear", "matmul", "attention")
_SIZES = ("sym_size", "size", "sym_numel", "sym_stride")
_LONGEST = 24


def kernels_of(graph: fx.Graph, shapes: Shapes) -> tuple[Kernel, ...]:
    """The kernels that a runtime runs for a graph with these shapes, in graph order.

    Convolutions, products, norms and stand-alone pointwise ops anchor kernels; batch norms, activations and residual
    adds fuse into the kernel before, where no one else reads the value in between. Views, casts and
    quantize/dequantize pairs cost nothing, nor does what can be computed when the model is loaded. A call that is
    missing from ``shapes`` counts as removed: an add with a removed operand passes the other one through.

    Raises `InternalError` for a node with MACs whose shapes are missing.
    """
    return Grouping(graph, shapes).run()


@dataclass
class Group:
    """Nodes that run as one kernel; the last one makes its output."""

    kind: str
    members: list[fx.Node]
    domain: int
    reads: list[fx.Node] = field(default_factory=list)


class Grouping:
    """How the nodes of a graph fall into kernels.

    Attributes, after `run`:
        groups: in the order of their first nodes.
        classes: what each call that depends on the inputs is (see `compactor.ir.kernel_ops`).
        root: the node that really makes a value, behind views.
        readers: by root, who reads it.
        permutes: transpositions, free or not.
        explored: by the last node of a group, the nodes behind it that were looked at when nothing more could join.
    """

    def __init__(self, graph: fx.Graph, shapes: Shapes) -> None:
        self.graph, self.shapes = graph, shapes
        self.classes: dict[fx.Node, str] = {}
        self.root: dict[fx.Node, fx.Node] = {}
        self.removed: set[fx.Node] = set()
        self.readers: dict[fx.Node, list[fx.Node]] = {}
        self.order: dict[fx.Node, int] = {}
        self.done: set[fx.Node] = set()
        self.groups: list[Group] = []
        self.permutes: list[fx.Node] = []
        self.explored: dict[fx.Node, list[fx.Node]] = {}

    def run(self) -> tuple[Kernel, ...]:
        """The kernels, in graph order."""
        for node in self.graph.nodes:
            self._classify(node)
        self.permutes = [n for n, kind in self.classes.items() if kind == PERMUTE]
        self._resolve_permutes()
        self.order = {node: i for i, node in enumerate(self.root)}
        for node in self.root:
            for source in dict.fromkeys(self._sources(node)):
                if not self._is_view(node):
                    self.readers.setdefault(source, []).append(node)
        calls = [n for n in self.root if n.op == "call_function" and not self._is_view(n)]
        # Of two kernels that meet in an add, the later one fuses it; pointwise ops that none takes come after.
        for node in [n for n in reversed(calls) if not self.fusable(n)] + [n for n in calls if self.fusable(n)]:
            if node not in self.done:
                self._anchor(node)
        self.groups.sort(key=lambda g: self.order[g.members[0]])
        return tuple(map(self._kernel, self.groups))

    def homes(self) -> tuple[dict[str, int], dict[str, int]]:
        """By the names of nodes, the numbers of the kernels that they belong to; and of others, that they feed."""
        inside = {n.name: i for i, group in enumerate(self.groups) for n in group.members}
        feeding: dict[str, int] = {}
        for node in reversed(self.graph.nodes):
            if node.name not in inside:
                users = [feeding.get(u.name, inside.get(u.name)) for u in node.users]
                fed = next((i for i in users if i is not None), inside.get(self.root.get(node, node).name))
                if fed is not None:
                    feeding[node.name] = fed
        return inside, feeding

    # -- classes ---------------------------------------------------------------------------------------------------

    def _classify(self, node: fx.Node) -> None:
        """Give a node that depends on the input data its root and class; others stay unknown: constants."""
        if node.op == "placeholder":
            self.root[node] = node
        elif node.op == "output":
            self.root[node] = node
            self.classes[node] = "output"
        elif node.op == "call_function" and op_name(node) not in _SIZES:
            live = [n for n in node.all_input_nodes if n in self.root]
            gone = [n for n in node.all_input_nodes if n in self.removed]
            if node not in self.shapes and (live or gone):
                self.removed.add(node)
            elif live:
                kind = FREE if gone else self._class(node)
                self.classes[node] = kind
                self.root[node] = self.root[live[0]] if kind == FREE else node

    def _class(self, node: fx.Node) -> str:
        kind = op_class(node, self.shapes)
        if kind == "matmul" and self._second(node) not in self.root:
            return "linear"
        if is_zero_pad(node) and all(op_class(u, self.shapes) in ("conv", "depthwise") for u in node.users):
            return FREE
        if kind == WINDOW:
            return FREE if self._same_size(node) else "move"
        return kind

    def _second(self, node: fx.Node) -> fx.Node | None:
        given = [n for n in node.all_input_nodes if n not in self.removed]
        return given[-1] if len(given) > 1 else None

    def _same_size(self, node: fx.Node) -> bool:
        return elements(self.shapes[node]) == elements(self.shapes.get(node.all_input_nodes[0]))

    def _resolve_permutes(self) -> None:
        """A transposition is free where a matrix product absorbs it; elsewhere it copies."""
        for node, kind in self.classes.items():
            if kind == PERMUTE:
                first = node.all_input_nodes[0]
                maker = self.classes.get(self.maker(self.root[first]))
                makes_no_difference = sum(n > 1 for n in self.shapes[node]) < 2
                absorbed = maker in _ABSORBING or any(k in _ABSORBING for k in self._final_classes(node))
                self.classes[node] = FREE if absorbed or makes_no_difference else "move"
            if self._is_view(node):
                self.root[node] = self.root[next(n for n in node.all_input_nodes if n in self.root)]
            elif self.classes[node] != "output":
                self.root[node] = node

    def maker(self, node: fx.Node) -> fx.Node:
        """The node before a chain of pointwise ops on one value."""
        while self.classes.get(node) == POINTWISE:
            live = [n for n in node.all_input_nodes if n in self.root]
            if len(live) != 1:
                break
            node = self.root[live[0]]
        return node

    def _final_classes(self, node: fx.Node) -> list[str]:
        users = [u for u in node.users if u in self.classes]
        return [
            k
            for u in users
            for k in (self._final_classes(u) if self.classes[u] in (FREE, PERMUTE) else [self.classes[u]])
        ]

    def _is_view(self, node: fx.Node) -> bool:
        return self.classes.get(node) == FREE

    def fusable(self, node: fx.Node) -> bool:
        """Whether a call may join the kernel before it."""
        kind = self.classes[node]
        return kind == POINTWISE or (kind == REDUCTION and keeps_rows(node, self.shapes))

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        return [self.root[n] for n in node.all_input_nodes if n in self.root]

    # -- groups ----------------------------------------------------------------------------------------------------

    def _anchor(self, node: fx.Node) -> None:
        kind = self.classes[node]
        if kind == REDUCTION:
            kind = "norm" if keeps_rows(node, self.shapes) else "pool"
        sizes = [elements(self.shapes[node])]
        if kind in ("norm", "pointwise"):
            sizes += [elements(self.shapes.get(n)) for n in node.all_input_nodes]
        group = Group(kind, [node], max(sizes))
        self.groups.append(group)
        self.done.add(node)
        while group.kind in _OPEN and (region := self._region(group)):
            group.members += region
            self.done.update(region)
            if any(self.classes[n] == REDUCTION for n in region):
                group.kind = "norm"

    def _region(self, group: Group) -> list[fx.Node]:
        """The next nodes to fuse: all between the group's last value and the single node through which it leaves."""
        tail = group.members[-1]
        region: list[fx.Node] = []
        waiting = list(self.readers.get(tail, ()))
        while waiting and len(region) < _LONGEST:
            node = min(waiting, key=self.order.__getitem__)
            if not self._fits(node, group):
                break
            waiting.remove(node)
            region.append(node)
            if not waiting:
                return region
            waiting += [n for n in self.readers.get(node, ()) if n not in waiting]
        self.explored[tail] = region
        return []

    def _fits(self, node: fx.Node, group: Group) -> bool:
        spelled_out = group.kind in ("pointwise", "norm")
        if node in self.done or not self.fusable(node) or (self.classes[node] == REDUCTION and not spelled_out):
            return False
        size = elements(self.shapes[node])
        return size == group.domain or (spelled_out and size <= group.domain)

    # -- kernels ---------------------------------------------------------------------------------------------------

    def _kernel(self, group: Group) -> Kernel:
        anchor, members = group.members[0], set(group.members)
        read: dict[fx.Node, dict[fx.Node, int]] = {}
        held: dict[fx.Node, int] = {}
        for node in group.members:
            for operand in self._operands(node):
                size = elements(self.shapes.get(operand))
                if operand not in self.root:
                    held[operand] = size
                elif self.root[operand] not in members:
                    read.setdefault(self.root[operand], {})[operand] = size
        inputs = sum(min(sum(parts.values()), elements(self.shapes.get(root))) for root, parts in read.items())
        macs, groups, rows, columns, depth = products(anchor, self.shapes)
        outputs = elements(self.shapes[group.members[-1]])
        weights, fused = sum(held.values()), self._fused(group)
        return Kernel(group.kind, macs, inputs, weights, outputs, anchor.name, groups, rows, columns, depth, fused)

    def _fused(self, group: Group) -> tuple[int, ...]:
        made = [0] * len(EPILOGUES)
        for node in group.members:
            # Batch norms fold into the weights before.
            if self.classes[node] == POINTWISE and "batch_norm" not in op_name(node):
                made[epilogue(node)] += elements(self.shapes[node])
        return tuple(made)

    def _operands(self, node: fx.Node) -> list[fx.Node]:
        operands = [n for n in node.all_input_nodes if n not in self.removed]
        if op_name(node) not in ("batch_norm", "_native_batch_norm_legit_no_training"):
            return operands
        # Folded into the weights before, a batch norm leaves one bias behind.
        bias = node.args[2] if len(node.args) > 2 else None
        return [n for n in operands if n in self.root or n is bias]
