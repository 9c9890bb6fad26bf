"""What remains of the exporter's traces is removed: names and shapes then depend on the Program only."""

from collections.abc import Callable
from typing import Any

from compactor.backends.onnx import origins, qdq
from compactor.ir.program import Program


def clean(model: Any, program: Program, rewrite: Callable[[Any], None] | None) -> dict[str, str]:
    """Change an ``onnx_ir.Model`` in place, by ``rewrite`` too; what it computes stays.

    Returns the marks of `compactor.backends.onnx.origins` by the nodes' new names.
    """
    from onnx_ir.passes import common

    qdq.transpose_weights(model.graph)
    qdq.split_gemms(model.graph)
    qdq.drop_zero_points(model.graph)
    if rewrite is not None:
        rewrite(model.graph)
    marks = origins.marks(model.graph)
    for step in (
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    ):
        step(model)
    _rename(model.graph, program)
    _name_dimensions(model.graph, program)
    model.graph.sort()
    return {node.name: marks[node] for node in model.graph if node in marks}


def _rename(graph: Any, program: Program) -> None:
    """Names by position: the names of graph nodes are not part of a Program's identity."""
    outputs = dict(zip(graph.outputs, program.outputs, strict=True))
    taken = {spec.name for spec in program.inputs} | set(program.outputs)
    for value, spec in zip(graph.inputs, program.inputs, strict=True):
        value.name = spec.name
    known = {*program.state, *(f"{name}_transposed" for name in program.state)}
    constants = [v for name, v in list(graph.initializers.items()) if name not in known or name in taken]
    for i, value in enumerate(constants):
        value.name = f"constant.{i}"
    for i, node in enumerate(graph):
        node.name = f"{node.op_type}.{i}"
        for k, value in enumerate(node.outputs):
            value.name = outputs.get(value, f"{node.name}:{k}")
            if value not in outputs:
                value.shape = value.type = None


def _name_dimensions(graph: Any, program: Program) -> None:
    import onnx_ir as ir

    names: dict[str, str] = {}
    for value, spec in zip(graph.inputs, program.inputs, strict=True):
        for i, dim in spec.dynamic.items():
            names.setdefault(str(value.shape[i]), dim.name)
        value.shape = ir.Shape([spec.dynamic[i].name if i in spec.dynamic else n for i, n in enumerate(spec.shape)])
    for value in graph.outputs:
        value.shape = ir.Shape([n if isinstance(n, int) else names.get(str(n)) for n in value.shape])
