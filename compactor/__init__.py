"""A compression compiler for the edge: teacher in, verified student out.

Everything here loads when first used: ``import compactor`` alone costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compactor.budget import Budget
    from compactor.errors import (
        CompactorError,
        InputError,
        InternalError,
        MissingRuntimeError,
        ParityError,
        UnsupportedError,
        UsageError,
    )
    from compactor.frontend import export, load
    from compactor.ir.masking import mask_program as mask
    from compactor.ir.program import Program
    from compactor.ir.slicing import slice_program as slice
    from compactor.ir.space import SearchSpace
    from compactor.ir.subnet import Subnet
    from compactor.latency import Latency
    from compactor.pipeline.driver import build
    from compactor.pipeline.lowering import measure, predict
    from compactor.pipeline.searching import search
    from compactor.pipeline.text import Pipeline
    from compactor.report.artifact import Artifact

_HOMES = {
    "Artifact": ("compactor.report.artifact", "Artifact"),
    "Budget": ("compactor.budget", "Budget"),
    "CompactorError": ("compactor.errors", "CompactorError"),
    "InputError": ("compactor.errors", "InputError"),
    "InternalError": ("compactor.errors", "InternalError"),
    "Latency": ("compactor.latency", "Latency"),
    "MissingRuntimeError": ("compactor.errors", "MissingRuntimeError"),
    "ParityError": ("compactor.errors", "ParityError"),
    "Pipeline": ("compactor.pipeline.text", "Pipeline"),
    "Program": ("compactor.ir.program", "Program"),
    "SearchSpace": ("compactor.ir.space", "SearchSpace"),
    "Subnet": ("compactor.ir.subnet", "Subnet"),
    "UnsupportedError": ("compactor.errors", "UnsupportedError"),
    "UsageError": ("compactor.errors", "UsageError"),
    "build": ("compactor.pipeline.driver", "build"),
    "export": ("compactor.frontend", "export"),
    "load": ("compactor.frontend", "load"),
    "mask": ("compactor.ir.masking", "mask_program"),
    "measure": ("compactor.pipeline.lowering", "measure"),
    "predict": ("compactor.pipeline.lowering", "predict"),
    "search": ("compactor.pipeline.searching", "search"),
    "slice": ("compactor.ir.slicing", "slice_program"),
}

__all__ = [
    "Artifact",
    "Budget",
    "CompactorError",
    "InputError",
    "InternalError",
    "Latency",
    "MissingRuntimeError",
    "ParityError",
    "Pipeline",
    "Program",
    "SearchSpace",
    "Subnet",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "build",
    "export",
    "load",
    "mask",
    "measure",
    "predict",
    "search",
    "slice",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("compactor")
    if name not in _HOMES:
        raise AttributeError(f"module 'compactor' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
