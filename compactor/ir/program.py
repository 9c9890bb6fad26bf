"""`Program`: an exported graph, its weights, its input specification and its history."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from compactor.errors import InputError
from compactor.ir import graphs, quantized  # noqa: F401 (registers the operators of int8 Programs)
from compactor.ir.graphs import aten
from compactor.ir.kernels import Kernel

if TYPE_CHECKING:
    from compactor.ir.cost import Cost
    from compactor.ir.quantplan import QuantPlan
    from compactor.ir.shapes import Shape


@dataclass(frozen=True)
class DynamicDim:
    """A dimension whose size is free between ``low`` and ``high``; equal names mean equal sizes."""

    name: str
    low: int = 1
    high: int = 4096


@dataclass(frozen=True)
class InputSpec:
    """One input: ``shape`` is the nominal one (batch included), ``dynamic`` says which dimensions may differ."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    dynamic: Mapping[int, DynamicDim] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        dynamic = {str(k): [d.name, d.low, d.high] for k, d in self.dynamic.items()}
        dtype = str(self.dtype).removeprefix("torch.")
        return {"name": self.name, "shape": list(self.shape), "dtype": dtype, "dynamic": dynamic}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "InputSpec":
        """The inverse of `to_dict`."""
        dynamic = {int(k): DynamicDim(*v) for k, v in data["dynamic"].items()}
        return InputSpec(data["name"], tuple(data["shape"]), getattr(torch, data["dtype"]), dynamic)


@dataclass(frozen=True, eq=False)
class Program:
    """The IR. Immutable: every change makes a new Program that shares the untouched tensors.

    Attributes:
        graph: ATen graph; placeholders are the inputs in order, ``get_attr`` nodes name tensors of ``state``.
        state: all tensors by name; ``trainable`` names those that training may change.
        inputs: specification of each input. Dimension 0 of every input is the batch.
        outputs: names of the outputs, in order.
        precision: ``float32``, ``float16``, ``bfloat16`` or ``int8``: what the lowered model computes in.
        between: what an int8 one computes in between its quantizers, as far as its runtime leaves the choice.
        history: one record per pass that made this Program.
        meta: JSON-able facts that travel with it (label names, task, tokenizer folder, ...).
    """

    graph: fx.Graph
    state: Mapping[str, Tensor]
    trainable: frozenset[str]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    precision: str = "float32"
    between: str = "float32"
    history: tuple[Mapping[str, Any], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        used = graphs.used_state(self.graph)
        object.__setattr__(self, "state", {name: self.state[name] for name in used})
        object.__setattr__(self, "trainable", self.trainable & set(used))

    # -- running ---------------------------------------------------------------------------------------------------

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Outputs for these inputs, without gradients. One output comes bare, several as a tuple."""
        with torch.no_grad():
            outputs = self._runner(*self.check_inputs(inputs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @cached_property
    def _runner(self) -> fx.GraphModule:
        return graphs.graph_module(self.graph, dict(self.state))

    def check_inputs(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The inputs, if they fit the specification. Raises `InputError` naming the first that does not."""
        if len(inputs) != len(self.inputs):
            names = ", ".join(s.name for s in self.inputs)
            raise InputError(f"{len(inputs)} inputs given, the model takes {len(self.inputs)}", f"give {names}")
        for spec, value in zip(self.inputs, inputs, strict=True):
            fits = value.dim() == len(spec.shape) and all(
                i in spec.dynamic or have == want
                for i, (have, want) in enumerate(zip(value.shape, spec.shape, strict=True))
            )
            if not fits or value.dtype != spec.dtype:
                shape = ", ".join(
                    spec.dynamic[i].name if i in spec.dynamic else str(n) for i, n in enumerate(spec.shape)
                )
                raise InputError(
                    f"input {spec.name!r} has shape {tuple(value.shape)} and dtype {value.dtype}",
                    f"the model takes ({shape}) of {spec.dtype}",
                )
        return tuple(inputs)

    def module(self, *, train: bool = False, dropout: bool = True) -> fx.GraphModule:
        """An independent module with its own copy of the weights; outputs are a tuple.

        With ``train``, batch norms use and update batch statistics, and dropout is active unless told otherwise. Its
        ``state_dict()`` goes back in through `with_state`.
        """
        graph, _ = graphs.copy_graph(self.graph)
        if train:
            for node in graph.nodes:
                if node.target is aten.batch_norm.default:
                    graphs.set_argument(node, 5, "training", True)
                elif node.target is aten.dropout.default:
                    graphs.set_argument(node, 2, "train", dropout)
        return graphs.graph_module(graph, {k: v.detach().clone() for k, v in self.state.items()}, self.trainable)

    def example_inputs(self, batch: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of the nominal shape with this batch size; integers are drawn below 2."""
        generator = torch.Generator().manual_seed(seed)
        values = []
        for shape, dtype in self.input_shapes(batch):
            if dtype.is_floating_point:
                values.append(torch.rand(shape, generator=generator).to(dtype))
            elif dtype == torch.bool:
                values.append(torch.ones(shape, dtype=dtype))
            else:
                values.append(torch.randint(0, 2, shape, generator=generator).to(dtype))
        return tuple(values)

    def input_shapes(self, batch: int = 1) -> list[tuple["Shape", torch.dtype]]:
        """Nominal shape and dtype of every input at this batch size."""
        return [((batch, *s.shape[1:]) if 0 in s.dynamic else s.shape, s.dtype) for s in self.inputs]

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def arithmetic(self) -> str:
        """``precision``, and what is between its quantizers where that is not float32: ``int8+bfloat16``."""
        mixed = self.precision == "int8" and self.between != "float32"
        return f"{self.precision}+{self.between}" if mixed else self.precision

    @cached_property
    def values(self) -> dict[fx.Node, Any]:
        """Fake value of every node at batch 1, for shapes and dtypes."""
        from compactor.ir.shapes import infer

        return infer(self.graph, dict(self.state), self.input_shapes(1))

    def cost(self) -> "Cost":
        """Parameters, MACs and bytes at batch 1."""
        from compactor.ir.cost import count

        return count(self)

    @cached_property
    def quantization(self) -> "QuantPlan":
        """Every quantizer of the graph, as data; empty where there is none."""
        from compactor.ir.quantizing import split

        return split(self)[1]

    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels a runtime would run at batch 1."""
        from compactor.ir.cost import kernels

        return kernels(self)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over structure, weights, inputs and precision; names of nodes, history and meta do not count."""
        digest = hashlib.sha256()
        numbers: dict[fx.Node, str] = {}
        count = itertools.count()

        def text(value: Any) -> str:
            if isinstance(value, fx.Node):
                return numbers[value]
            if isinstance(value, (list, tuple)):
                return "[" + ",".join(map(text, value)) + "]"
            if isinstance(value, dict):
                return "{" + ",".join(f"{k}:{text(v)}" for k, v in sorted(value.items())) + "}"
            return repr(value)

        for node in self.graph.nodes:
            # Exporting moves the reads of tensors to the front, so where they stand does not count.
            numbers[node] = f"@{node.target}" if node.op == "get_attr" else f"%{next(count)}"
        for node in (n for n in self.graph.nodes if n.op != "get_attr"):
            target = "" if node.op in ("placeholder", "output") else str(node.target)
            args, kwargs = graphs.plain_arguments(node)
            digest.update(f"{node.op} {target} {text(args)} {text(kwargs)}\n".encode())
        digest.update(json.dumps([s.to_dict() for s in self.inputs], sort_keys=True).encode())
        digest.update(f"{self.outputs} {self.arithmetic} {sorted(self.trainable)}".encode())
        for name, tensor in sorted(self.state.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    # -- making new Programs ---------------------------------------------------------------------------------------

    def with_state(self, state: Mapping[str, Tensor]) -> "Program":
        """The same graph over new values; names not given keep theirs."""
        fresh = {k: state[k].detach().clone() if k in state else v for k, v in self.state.items()}
        return replace(self, state=fresh)

    def evolve(self, **changes: Any) -> "Program":
        """A Program with these fields replaced."""
        return replace(self, **changes)

    def save(self, path: str | Path) -> None:
        """Write a ``.pt2`` archive that `compactor.load` and `torch.export.load` both read."""
        from compactor.ir.archive import save

        save(self, Path(path))
