"""A probe of the axis rules on one model: what is sliced must compute what is masked."""

import torch
from torch import Tensor, fx

from compactor.errors import InternalError
from compactor.ir import graphs
from compactor.ir.axes import Ids
from compactor.ir.masking import mask_program
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace
from compactor.ir.subnet import Subnet

TOLERANCE = 1e-3
"""Relative error allowed; what rounding leaves is a thousand times less."""


def verify_rules(space: SearchSpace, seed: int = 0, *, repeat: bool = False) -> None:
    """Slice and mask one random subnet and compare. Raises `InternalError` naming the first op that is at odds.

    Shapes alone do not tell a rule that mixes up indices; this does, for two forward passes. With ``repeat`` units are
    kept twice, in all groups where this should not change what is computed.
    """
    program = space.program
    subnet = space.sample(seed, keep=(0.3, 0.7), depth=1.0)
    if repeat:
        subnet = _twice(space, subnet)
    inputs = program.example_inputs(1, seed)
    sliced, masked = _values(slice_program(program, subnet), inputs), _values(mask_program(program, subnet), inputs)
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and n.name in sliced and n.name in masked]
    output = set(graphs.output_node(program.graph).all_input_nodes)
    copies = space.copies(subnet)
    if all(_agree(space, copies, n, sliced, masked) for n in nodes if n in output):
        return
    wrong = next((n for n in nodes if not _agree(space, copies, n, sliced, masked) and not _corrected(n)), None)
    where = f"first at node {wrong.name} ({wrong.target})" if wrong is not None else "at the outputs"
    raise InternalError(f"slicing and masking disagree, {where}", "its axis rule is wrong; please report this model")


def _twice(space: SearchSpace, subnet: Subnet) -> Subnet:
    """The same choice with every unit kept twice where that changes nothing."""
    kept = dict(subnet.kept)
    for group in space.groups:
        units = kept.get(group.name, tuple(range(group.size)))
        if group.name not in space.unrepeatable and not space.changes(space.choose({group.name: 2 * units})):
            kept[group.name] = 2 * units
    return space.choose(kept, subnet.dropped)


class _Recorder(fx.Interpreter):
    values: dict[str, Tensor]

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.values[n.name] = result
        return result


def _values(program: Program, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    recorder = _Recorder(graphs.graph_module(program.graph, program.state))
    recorder.values = {}
    with torch.no_grad():
        recorder.run(*inputs)
    return recorder.values


def _agree(
    space: SearchSpace, copies: Ids, node: fx.Node, sliced: dict[str, Tensor], masked: dict[str, Tensor]
) -> bool:
    found, whole = sliced[node.name], masked[node.name]
    for dim, kept in enumerate(space.indices(space.analysis.of(node), copies)):
        if kept is not None:
            whole = whole.index_select(dim, torch.from_numpy(kept))
    if found.shape != whole.shape or not found.is_floating_point():
        return found.shape == whole.shape and torch.equal(found, whole)
    finite = whole.isfinite()
    difference = (found.double() - whole.double())[finite].norm()
    return torch.equal(finite, found.isfinite()) and bool(
        difference <= TOLERANCE * (whole[finite].double().norm() + 1e-9)
    )


def _corrected(node: fx.Node) -> bool:
    """Whether a mask leaves this op's own value uncorrected, for a later node to repair."""
    from compactor.ir.rules import find_masked

    return find_masked(node) is not None
