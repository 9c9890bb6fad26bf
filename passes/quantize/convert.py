"""From NNCF's module back to a Program and its plan: sizes dynamic again, names as before."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from compactor.errors import InternalError
from compactor.ir import graphs
from compactor.ir.program import Program
from compactor.ir.quantized import is_dequantize, is_quantize, ops
from compactor.ir.quantizing import split
from compactor.ir.quantplan import QuantPlan

_DEQUANTIZE: dict[Callable[..., Any], Callable[..., Any]] = {
    ops.quantize_per_tensor.default: ops.dequantize_per_tensor.default,
    ops.quantize_per_channel.default: ops.dequantize_per_channel.default,
}


def to_plan(program: Program, module: fx.GraphModule, *, signed: bool = False) -> tuple[Program, QuantPlan]:
    """A float Program and the plan with which it computes what ``module`` computes.

    ``module`` is NNCF's, made from ``program``'s static twin. The Program has its products of SmoothQuant and its
    corrected biases. With ``signed``, unsigned activations are widened to int8 over the same range, at half the
    resolution.
    """
    graph, state = _Conversion(program, module, signed).run()
    trainable = frozenset(name for name in program.trainable if name in state)
    return split(program.evolve(graph=graph, state=state, trainable=trainable, precision="int8"))


def _quantizes_constant(node: Any) -> bool:
    return is_quantize(node) and node.args[0].op == "get_attr"


def _belongs_to_weight(node: fx.Node) -> bool:
    return _quantizes_constant(node) or (is_dequantize(node) and _quantizes_constant(node.args[0]))


def _operator(node: fx.Node) -> Callable[..., Any]:
    if isinstance(node.target, str):
        raise InternalError(f"node {node.name} calls {node.target!r}, not an operator")
    return node.target


class _Conversion:
    """One walk over NNCF's graph, building ours."""

    def __init__(self, program: Program, module: fx.GraphModule, signed: bool) -> None:
        self.module = module
        self.signed = signed
        self.values = program.values
        self.originals = {n.name: n for n in program.graph.nodes}
        self.source = program
        self.graph = fx.Graph()
        self.state: dict[str, Tensor] = {}
        self.mapping: dict[fx.Node, Any] = {}
        self.sizes: dict[fx.Node, fx.Node] = {}
        self.calls: dict[Any, fx.Node] = {}
        self.reads: dict[str, fx.Node] = {}

    def run(self) -> tuple[fx.Graph, dict[str, Tensor]]:
        nodes = list(self.module.graph.nodes)
        for node in (n for n in nodes if n.op == "placeholder"):
            self.mapping[node] = self.graph.placeholder(str(node.target))
        self._input_sizes()
        for node in nodes:
            if node.op == "call_module":
                self.mapping[node] = self._smoothing(node)
            elif node.op == "call_function" and not _belongs_to_weight(node):
                self.mapping[node] = self._call(node)
            elif node.op == "output":
                self.graph.output(fx.node.map_arg(node.args[0], lambda n: self.mapping[n]))
        graphs.eliminate_dead(self.graph)
        return self.graph, self.state

    # -- nodes -----------------------------------------------------------------------------------------------------

    def _call(self, node: fx.Node) -> fx.Node:
        original = self.originals.get(node.name)
        if is_quantize(node) or is_dequantize(node):
            return self._shared(_operator(node), self._quantization_arguments(node))
        if original is None or original.target is not node.target:
            raise InternalError(f"quantization made the node {node.name} ({node.target}), which is not understood")
        args = tuple(
            self._argument(node, i, a, o) for i, (a, o) in enumerate(zip(node.args, original.args, strict=True))
        )
        kwargs = {k: self._argument(node, k, v, original.kwargs[k]) for k, v in node.kwargs.items()}
        return self.graph.create_node("call_function", node.target, args, kwargs, name=node.name)

    def _argument(self, node: fx.Node, place: int | str, value: Any, original: Any) -> Any:
        """An argument in our graph: sizes as they were, tensors of the state under their names."""
        if isinstance(original, fx.Node) and not isinstance(value, fx.Node):
            return self._size(original)
        if isinstance(original, (list, tuple)):
            return [self._argument(node, place, v, o) for v, o in zip(value, original, strict=True)]
        if not isinstance(value, fx.Node):
            return value
        if value.op == "get_attr":
            return self._read(self._name(original, node, place), self._tensor(value))
        if is_dequantize(value) and _quantizes_constant(value.args[0]):
            return self._weight(value.args[0], self._name(original, node, place))  # type: ignore[arg-type]
        return self.mapping[value]

    def _weight(self, quantize: fx.Node, name: str) -> fx.Node:
        """A weight behind a quantizer of the graph."""
        given: list[Any] = [self._tensor(a) if isinstance(a, fx.Node) else a for a in quantize.args]
        rest: list[Any] = []
        for i, value in enumerate(given[1:]):
            named = f"{name}_{'zero_point' if i else 'scale'}"
            rest.append(self._read(named, value) if isinstance(value, Tensor) else value)
        rounded = self._shared(_operator(quantize), (self._read(name, given[0]), *rest))
        return self._shared(_DEQUANTIZE[_operator(quantize)], (rounded, *rest))

    def _smoothing(self, node: fx.Node) -> fx.Node:
        """SmoothQuant's product with one factor per channel."""
        module = self.module.get_submodule(str(node.target))
        scales = list(module.buffers()) + list(module.parameters())
        if len(scales) != 1:
            raise InternalError(f"quantization made the module {node.target}, which is not understood")
        name = str(node.target).replace("/", "_").replace(".", "_")
        factor = self._read(name, scales[0].detach())
        return self._shared(torch.ops.aten.mul.Tensor, (self.mapping[node.args[0]], factor))  # type: ignore[index]

    def _quantization_arguments(self, node: fx.Node) -> tuple[Any, ...]:
        """Source, scale, zero point, lowest and highest value, type: of an activation, so all but the first literal."""
        source, scale, zero_point, low, high, dtype = node.args
        if self.signed and zero_point == 0 and low == 0:
            scale, low, high, dtype = scale * high / 127, -128, 127, torch.int8  # type: ignore[operator]
        return self.mapping[source], scale, zero_point, low, high, dtype  # type: ignore[index]

    def _shared(self, target: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        """One node for equal calls: NNCF writes one per reader."""
        key = (target, args)
        if key not in self.calls:
            self.calls[key] = self.graph.call_function(target, args)
        return self.calls[key]

    # -- sizes -----------------------------------------------------------------------------------------------------

    def _input_sizes(self) -> None:
        """Sizes of inputs come right behind the inputs, as everywhere."""
        for node in self.source.graph.nodes:
            known = [n.op == "placeholder" or n in self.sizes for n in node.all_input_nodes]
            if node.op == "call_function" and isinstance(self.values.get(node), int) and known and all(known):
                self._size(node)

    def _size(self, node: fx.Node) -> fx.Node:
        if node not in self.sizes:
            self.sizes[node] = self.graph.node_copy(node, self._size_input)
            self.sizes[node].meta = {}
        return self.sizes[node]

    def _size_input(self, node: fx.Node) -> fx.Node:
        if isinstance(self.values.get(node), int):
            return self._size(node)
        found: fx.Node = next(ours for theirs, ours in self.mapping.items() if theirs.name == node.name)
        return found

    # -- tensors ---------------------------------------------------------------------------------------------------

    def _tensor(self, node: fx.Node) -> Tensor:
        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value.detach()  # type: ignore[no-any-return]

    def _name(self, original: Any, node: fx.Node, place: int | str) -> str:
        known = isinstance(original, fx.Node) and original.op == "get_attr"
        return str(original.target) if known else f"{node.name}_{place}"

    def _read(self, name: str, tensor: Tensor) -> fx.Node:
        """A read of a tensor; one that differs from what the name already holds gets a numbered name."""
        fresh, number = name, 1
        while fresh in self.state and not (
            self.state[fresh].dtype == tensor.dtype and torch.equal(self.state[fresh], tensor)
        ):
            fresh, number = f"{name}_{number}", number + 1
        if fresh not in self.state:
            self.state[fresh] = tensor.detach().clone().contiguous()
            self.reads[fresh] = self.graph.get_attr(fresh)
        return self.reads[fresh]
