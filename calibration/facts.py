"""What data must know of a Program: classes, image sizes, vocabularies."""

from typing import Any

from torch import Tensor

from compactor.ir import graphs, lookups
from compactor.ir.program import InputSpec, Program


def classes(program: Program) -> int | None:
    """Number of logits of a classifier; None where the first output is not (batch, classes)."""
    outputs: Any = graphs.output_node(program.graph).args[0]
    value = program.values[outputs[0]]
    return int(value.shape[1]) if isinstance(value, Tensor) and value.dim() == 2 else None


def labels(program: Program) -> tuple[str, ...] | None:
    """Label names in logit order, when the teacher has them."""
    names = program.meta.get("labels")
    return tuple(str(n) for n in names) if names else None


def is_image(spec: InputSpec) -> bool:
    """Whether an input holds images (N, C, H, W) of 1, 3 or 4 channels."""
    return spec.dtype.is_floating_point and len(spec.shape) == 4 and spec.shape[1] in (1, 3, 4)


def vocabulary(program: Program, name: str) -> int | None:
    """Rows of the embedding that an integer input is looked up in; None where there is none."""
    node = lookups.table(program, name)
    return None if node is None else int(program.values[node].shape[0])
