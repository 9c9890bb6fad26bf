"""The canonical teacher without a build: what searches analyse, for those who only look."""

from pathlib import Path
from tempfile import TemporaryDirectory

from compactor import registry
from compactor.ir.program import Program
from compactor.pipeline.request import bare_context, resolve_target

NAME = "canonicalize"


def canonical(program: Program) -> Program:
    """The Program as the first pass of every named pipeline leaves it. Raises `UnsupportedError` as that pass does."""
    if NAME not in registry.names("compactor.passes"):
        return program
    target = resolve_target("host-cpu")  # a context has one; this pass does not ask for it
    with TemporaryDirectory(prefix="compactor-") as folder:
        return bare_context(program, target, Path(folder)).apply(program, [(NAME, {})])
