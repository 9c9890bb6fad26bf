"""A 16-bit Program as float32 with the same weight values, for what brings or lacks 16-bit arithmetic of its own."""

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from compactor.ir import graphs
from compactor.ir.program import Program

_HALVES = (torch.float16, torch.bfloat16)


def widen(program: Program) -> Program:
    """The Program with every 16-bit tensor and every cast to 16 bits widened to float32; others pass unchanged."""
    if program.precision not in ("float16", "bfloat16"):
        return program
    graph, _ = graphs.copy_graph(program.graph)
    for node in graph.nodes:
        node.args = _widen(node.args)
        node.kwargs = _widen(node.kwargs)
    state = {name: t.float() if t.dtype in _HALVES else t for name, t in program.state.items()}
    return replace(program, graph=graph, state=state)


def _widen(value: Any) -> Any:
    return fx.node.map_aggregate(value, lambda v: torch.float32 if v in _HALVES else v)
