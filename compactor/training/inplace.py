"""Less memory traffic in a training step, the same numbers."""

from torch import fx

from compactor.ir.graphs import aten

_OUTPUT_NOT_NEEDED = {aten.batch_norm.default, aten.add.Tensor, aten.conv2d.default, aten.linear.default}


def relus_in_place(module: fx.GraphModule) -> None:
    """Let a ReLU overwrite its input where nothing else reads it and the backward of its producer does not need it."""
    for node in module.graph.nodes:
        if node.target is aten.relu.default:
            (source,) = node.args
            if source.target in _OUTPUT_NOT_NEEDED and len(source.users) == 1:
                node.target = aten.relu_.default
    module.recompile()
