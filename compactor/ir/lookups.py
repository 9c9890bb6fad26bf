"""Which table the tokens of an input are looked up in."""

from torch import fx

from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program

_PASSING = {
    aten.view.default,
    aten.reshape.default,
    aten.to.dtype,
    aten.slice.Tensor,
    aten.clone.default,
    aten.alias.default,
    aten.expand.default,
    aten.unsqueeze.default,
    aten.contiguous.default,
}


def table(program: Program, name: str) -> fx.Node | None:
    """The embedding, (rows, width), that an integer input is looked up in; None where there is none."""
    position = [spec.name for spec in program.inputs].index(name)
    queue: list[fx.Node] = [graphs.placeholders(program.graph)[position]]
    for node in queue:
        for user in node.users:
            if user.target is aten.embedding.default and user.args[1] is node:
                found = user.args[0]
                return found if isinstance(found, fx.Node) else None
            if user.target in _PASSING and user not in queue:
                queue.append(user)
    return None
