"""Cost counting: parameters, MACs and the kernels that a runtime would run."""

from dataclasses import dataclass

from compactor.ir.kernels import Kernel
from compactor.ir.program import Program


@dataclass(frozen=True)
class Cost:
    """``parameters``: trainable elements, shared ones once; ``macs`` at batch 1; ``bytes`` of all tensors."""

    parameters: int
    macs: int
    bytes: int


def count(program: Program) -> Cost:
    """Cost of a Program at batch 1 and nominal shapes."""
    parameters = sum(program.state[name].numel() for name in program.trainable)
    size = sum(t.numel() * t.element_size() for t in program.state.values())
    return Cost(parameters, sum(k.macs for k in kernels(program)), size)


def kernels(program: Program) -> tuple[Kernel, ...]:
    """The kernels of a Program at batch 1, in graph order."""
    raise NotImplementedError
