"""Batch norm statistics of a subnet, estimated anew: those of shared weights fit no subnet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program


def recalibrated(program: Program, inputs: Sequence[Tensor]) -> Program:
    """The Program with the batch norm statistics of these inputs, as one batch; itself where it has no batch norms.

    Universally slimmable networks (arXiv 1903.05134).
    """
    module = program.module(train=True, dropout=False)
    norms = [n for n in module.graph.nodes if n.target is aten.batch_norm.default]
    if not norms:
        return program
    for node in norms:
        graphs.set_argument(node, 6, "momentum", 1.0)
    module.recompile()
    with torch.no_grad():
        module(*inputs)
    return program.with_state(module.state_dict())
