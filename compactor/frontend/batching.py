"""Frees the batch of a Program that was exported at one fixed batch size."""

import torch
from torch import Tensor, fx

from compactor.errors import CompactorError, InputError
from compactor.frontend.exporting import BATCH, export
from compactor.frontend.quiet import quiet
from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program

_SHAPED = (aten.view.default, aten.reshape.default, aten.expand.default, aten._unsafe_view.default)
_REMEDY = (
    "export it again with a free batch: torch.export.export(model, args, dynamic_shapes="
    "{'<input>': {0: torch.export.Dim('batch', min=1, max=4096)}})"
)


def with_free_batch(program: Program) -> Program:
    """The Program with a dynamic batch, if it has none and its graph allows it; proven on samples taken one by one.

    Raises `InputError` with the export call to use where it does not.
    """
    if all(0 in spec.dynamic for spec in program.inputs):
        return program
    sizes = {spec.shape[0] if spec.shape else 0 for spec in program.inputs}
    shapes = ", ".join(f"{s.name} {s.shape}" for s in program.inputs)
    if len(sizes) != 1 or 0 in sizes or any(s.dynamic for s in program.inputs):
        raise InputError(f"the model was exported without a common free batch ({shapes})", _REMEDY)
    (size,) = sizes
    try:
        freed = _freed(program, size)
        same = _same(program, freed, size)
    except (CompactorError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0][:200]
        raise InputError(
            f"the model was exported at a fixed batch of {size} ({shapes}) and does not run at others: {first}", _REMEDY
        ) from error
    if not same:
        raise InputError(f"the model was exported at a fixed batch of {size} ({shapes}) and mixes its samples", _REMEDY)
    return freed


def _freed(program: Program, size: int) -> Program:
    graph, _ = graphs.copy_graph(program.graph)
    first, *_ = graphs.placeholders(graph)
    with graph.inserting_after(graphs.placeholders(graph)[-1]):
        batch = graph.call_function(aten.sym_size.int, (first, 0))
    for node in graph.nodes:
        if node.target in _SHAPED:
            _free_size(node, batch, size)
    module = graphs.graph_module(graph, dict(program.state), program.trainable)
    inputs = tuple(v.repeat(2, *[1] * (v.dim() - 1)) if size == 1 else v for v in program.example_inputs())
    freed = export(module, inputs, [{0: BATCH} for _ in inputs], meta=program.meta)
    names = [spec.name for spec in program.inputs]
    specs = tuple(s.__class__(n, s.shape, s.dtype, s.dynamic) for n, s in zip(names, freed.inputs, strict=True))
    kept = {name: getattr(program, name) for name in ("outputs", "precision", "between", "history")}
    return freed.evolve(inputs=specs, **kept)


def _free_size(node: fx.Node, batch: fx.Node, size: int) -> None:
    """A literal leading size that equals the fixed batch becomes the batch; `_same` proves whether rightly so."""
    sizes = node.args[1]
    if isinstance(sizes, (list, tuple)) and sizes and sizes[0] == size:
        node.update_arg(1, [batch, *sizes[1:]])


def _same(fixed: Program, freed: Program, size: int) -> bool:
    """Whether two different batches of the fixed Program, one after the other, equal one double batch of the free."""
    parts = [_varied(fixed, seed) for seed in (1, 2)]
    with quiet():
        want = [_outputs(fixed, part) for part in parts]
        have = _outputs(freed, tuple(torch.cat(pair) for pair in zip(*parts, strict=True)))
    joined = [torch.cat(pair) for pair in zip(*want, strict=True)]
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(joined, have, strict=True)
    )


def _varied(program: Program, seed: int) -> tuple[Tensor, ...]:
    return program.example_inputs(program.inputs[0].shape[0], seed)


def _outputs(program: Program, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    result = program(*inputs)
    return result if isinstance(result, tuple) else (result,)
