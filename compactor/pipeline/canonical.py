"""The canonical teacher without a build: what searches analyse, for those who only look."""

from pathlib import Path
from tempfile import TemporaryDirectory

from compactor import registry
from compactor.budget import Budget
from compactor.ir.program import Program
from compactor.pipeline.context import PassContext
from compactor.pipeline.request import backend_of, open_data, resolve_target

NAME = "canonicalize"


def canonical(program: Program) -> Program:
    """The Program as the first pass of every named pipeline leaves it. Raises `UnsupportedError` as that pass does."""
    if NAME not in registry.names("compactor.passes"):
        return program
    target = resolve_target("host-cpu")  # a context has one; this pass does not ask for it
    with TemporaryDirectory(prefix="compactor-") as folder:
        ctx = PassContext(
            teacher=program, target=target, backend=backend_of(target), data=open_data(None, program, 0),
            budget=Budget(), workspace=Path(folder),
        )  # fmt: skip
        result: Program = registry.load("compactor.passes", NAME)().run(program, ctx).program
    return result
