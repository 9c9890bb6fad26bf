"""The verifier: what every Program must fulfil, checked after every pass."""

import torch
from torch import Tensor

from compactor.errors import InternalError
from compactor.ir import graphs
from compactor.ir.program import Program


def verify(program: Program) -> None:
    """Raise `InternalError` naming the first thing that is wrong with a Program.

    Checked: the graph is well formed, every node fits its inputs, inputs and outputs agree with their specifications,
    weights and the outputs for example inputs are finite.
    """
    try:
        program.graph.lint()
    except RuntimeError as error:
        raise InternalError(f"the graph is malformed: {error}") from error
    _check_interface(program)
    for name, tensor in program.state.items():
        if not tensor.is_floating_point():
            continue
        # Constants such as attention masks may hold infinities on purpose.
        wrong = ~torch.isfinite(tensor) if name in program.trainable else torch.isnan(tensor)
        if wrong.any():
            raise InternalError(f"tensor {name!r} holds values that are not finite")
    program.values  # noqa: B018  (shape inference raises for a node that does not fit)
    outputs = program(*program.example_inputs(2))
    for name, value in zip(program.outputs, (outputs,) if isinstance(outputs, Tensor) else outputs, strict=True):
        if not torch.isfinite(value).all():
            raise InternalError(f"output {name!r} is not finite for example inputs")


def _check_interface(program: Program) -> None:
    inputs = graphs.placeholders(program.graph)
    if len(inputs) != len(program.inputs):
        raise InternalError(f"the graph has {len(inputs)} inputs, {len(program.inputs)} are specified")
    results = graphs.output_node(program.graph).args[0]
    if not isinstance(results, tuple) or len(results) != len(program.outputs):
        raise InternalError(f"the graph returns {results}, the outputs are {program.outputs}")
