"""From a live `nn.Module` to a Program."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils import _pytree as pytree

from compactor.errors import InputError, UnsupportedError
from compactor.frontend.quiet import quiet
from compactor.ir.exported import from_exported
from compactor.ir.program import DynamicDim, Program

BATCH = DynamicDim("batch", 1, 4096)
Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def export(
    module: nn.Module,
    example_inputs: Inputs,
    dynamic_dims: Sequence[Mapping[int, DynamicDim]] | None = None,
    *,
    meta: Mapping[str, Any] | None = None,
) -> Program:
    """The Program of a module in evaluation mode; the module itself is left as it was and shares nothing with it.

    Args:
        module: any module on the CPU that `torch.export` can capture.
        example_inputs: a tensor, a tuple of tensors, or tensors by argument name. Dimension 0 is the batch. The other
            sizes become the nominal ones, which are lowered and measured.
        dynamic_dims: per input, the dimensions whose size is free; by default dimension 0 of each, as ``batch``.
        meta: facts that travel with the Program (``task``, ``labels``, ``tokenizer``).

    Raises `InputError` for inputs that do not fit, `UnsupportedError` when the model cannot be exported faithfully.
    """
    names, values = _flat(example_inputs)
    dims = list(dynamic_dims) if dynamic_dims is not None else [{0: BATCH} for _ in values]
    if len(dims) != len(values):
        raise InputError(f"dynamic_dims for {len(dims)} inputs, {len(values)} given", "give one mapping per input")
    values = _two_rows(values, dims)
    _check_device(module)
    with _evaluating(module), quiet():
        exported = _capture(module, names, values, dims)
        program = from_exported(exported, meta)
        program = program.evolve(state={name: tensor.clone() for name, tensor in program.state.items()})
        _check_faithful(module, program, names, values)
    return program


def _flat(inputs: Inputs) -> tuple[list[str] | None, list[Tensor]]:
    names = list(inputs) if isinstance(inputs, Mapping) else None
    values = (
        [inputs] if isinstance(inputs, Tensor) else list(inputs.values() if isinstance(inputs, Mapping) else inputs)
    )
    if not values or not all(isinstance(v, Tensor) for v in values):
        kinds = ", ".join(type(v).__name__ for v in values) or "nothing"
        raise InputError(f"example inputs are {kinds}", "give a tensor, a tuple of tensors or tensors by argument name")
    return names, values


def _two_rows(values: list[Tensor], dims: Sequence[Mapping[int, DynamicDim]]) -> list[Tensor]:
    """At least two samples: `torch.export` takes a size of one to be constant."""
    batched = [0 in d for d in dims]
    sizes = {int(v.shape[0]) if v.dim() else 0 for v, b in zip(values, batched, strict=True) if b}
    if len(sizes) > 1 or 0 in sizes:
        shapes = ", ".join(str(tuple(v.shape)) for v in values)
        raise InputError(f"example inputs of shapes {shapes} have no common batch", "make dimension 0 the batch")
    if sizes != {1}:
        return values
    return [v.expand(2, *v.shape[1:]).clone() if b else v for v, b in zip(values, batched, strict=True)]


def _check_device(module: nn.Module) -> None:
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tensor.device.type != "cpu":
            raise InputError(f"tensor {name!r} is on {tensor.device}", "move the module with .to('cpu') first")


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the block; every submodule's own mode comes back."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _call(names: list[str] | None, values: list[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    return (tuple(values), {}) if names is None else ((), dict(zip(names, values, strict=True)))


def _capture(
    module: nn.Module, names: list[str] | None, values: list[Tensor], dims: Sequence[Mapping[int, DynamicDim]]
) -> ExportedProgram:
    args, kwargs = _call(names, values)
    known = {d.name: Dim(d.name, min=d.low, max=d.high) for free in dims for d in free.values()}
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]
    for value, free in zip(values, dims, strict=True):
        shapes[value] = {i: known[d.name] for i, d in free.items()}
    try:
        with torch.no_grad():
            module(*args, **kwargs)
    except Exception as error:  # the user's code
        given = ", ".join(f"{tuple(v.shape)} {v.dtype}" for v in values)
        raise InputError(
            f"the model does not run on example inputs {given}: {reason(error)}", "give inputs that the model takes"
        ) from error
    try:
        dynamic: Any = shapes.dynamic_shapes(module, args, kwargs)  # type: ignore[no-untyped-call]
        return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic)
    except Exception as error:  # torch.export raises whatever tracing meets
        raise UnsupportedError(
            f"torch.export cannot capture {type(module).__name__}: {reason(error)}",
            "rewrite what it names (data-dependent branches, fixed batch sizes), then try again",
        ) from error


def reason(error: Exception, limit: int = 300) -> str:
    """The lines of an error that say what went wrong, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line for line in lines if not line.startswith(("File ", "While executing", "from user code", "Set TORCH"))
    ]
    text = " ".join(telling[:3]) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + " ..."


def _check_faithful(module: nn.Module, program: Program, names: list[str] | None, values: list[Tensor]) -> None:
    """Export at one batch size must compute what the module computes at another."""
    index = torch.tensor([0, 1, 0])
    rows = [v[index] if 0 in s.dynamic else v for v, s in zip(values, program.inputs, strict=True)]
    args, kwargs = _call(names, rows)
    with torch.no_grad():
        want = [v for v in pytree.tree_leaves(module(*args, **kwargs)) if isinstance(v, Tensor)]
    have = program(*rows)
    have = have if isinstance(have, tuple) else (have,)
    for i, (a, b) in enumerate(zip(want, have, strict=True)):
        if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise UnsupportedError(
                f"output {i} of the exported model differs from the module's on 3 rows",
                "make forward deterministic and independent of the batch size",
            )
