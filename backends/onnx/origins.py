"""From the nodes of an ONNX file back to those of the Program: marks that the exporter carries along."""

import ast
from typing import Any

from torch.export import ExportedProgram

from compactor.ir.program import Program

ORIGIN = "origin"
"""Key in a graph node's ``meta``: the node of the Program that it was spelled out of, where that is another one."""
_MARK = "compactor:"


def mark(prepared: Program, exported: ExportedProgram) -> None:
    """Mark the calls of an exported Program with those that they came from.

    The exporter decomposes and renames nodes, but writes out as ``name_scopes`` in which module a node once stood.
    Exporting drops calls that change nothing and adds asserts, which no one reads; it keeps the order of the others.
    """
    calls = (n for n in prepared.graph.nodes if n.op == "call_function")
    for node in exported.graph.nodes:
        if node.op == "call_function" and node.users:
            call = next((c for c in calls if c.target == node.target), None)
            if call is None:
                return
            node.meta["nn_module_stack"] = {ORIGIN: (_MARK + call.meta.get(ORIGIN, call.name), ORIGIN)}


def marks(graph: Any) -> dict[Any, str]:
    """The marks in an ``onnx_ir.Graph``, by node; one that has none takes that of a node it feeds."""
    found: dict[Any, str] = {}
    for node in reversed(graph):
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        own = [s.removeprefix(_MARK) for s in scopes if s.startswith(_MARK)]
        origin = next((m for m in (*own, *(found.get(n) for n in node.successors())) if m is not None), None)
        if origin is not None:
            found[node] = origin
    return found
