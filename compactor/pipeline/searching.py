"""A search by itself: candidates and their figures in a folder, from which builds for any target can choose."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compactor.budget import Budget
from compactor.data import DataSource
from compactor.errors import CompactorError, InternalError, UsageError
from compactor.ir.program import Program
from compactor.pipeline import disk, request
from compactor.pipeline.context import PassContext, Progress, Silent
from compactor.pipeline.ledger import Ledger
from compactor.pipeline.manager import PassManager
from compactor.pipeline.pipelines import EFFORTS, named
from compactor.pipeline.plan import plan
from compactor.pipeline.store import Store, key_of
from compactor.pipeline.syntax import Step
from compactor.pipeline.text import Pipeline, all_options
from compactor.report import pareto
from compactor.target import Target

RESULT = "search.json"
DRAWING = "pareto.svg"
_PASS = "search.diswot"
_REMEDY = "free some space, or give another folder to --output"


def search(
    teacher: Program | nn.Module | str | Path,
    *,
    target: str | Target,
    data: DataSource | str | Path | None = None,
    budget: Budget | None = None,
    effort: str = "balanced",
    score: str = "default",
    candidates: int | None = None,
    workers: int | None = None,
    factory: str | None = None,
    trust_pickle: bool = False,
    example_inputs: tuple[Tensor, ...] | None = None,
    seed: int = 0,
    output: str | Path = "search",
    progress: Progress | None = None,
    store: str | Path | None = None,
) -> dict[str, Any]:
    """Search students of a teacher for a target; nothing is trained.

    Writes ``search.json``, with every candidate, and ``pareto.svg`` into ``output``, and returns the former's
    ``summary``: what would be chosen, and the ``archive`` of candidates that none beats. The same command goes on with a
    search that was stopped. Arguments as in `compactor.build`; ``score`` and ``candidates`` as in ``search.diswot``.

    Raises `UsageError`, `InputError`, `UnsupportedError` before any work, and when no candidate meets the limits.
    """
    output, resolved = _free(Path(output)), request.resolve_target(target)
    if effort not in EFFORTS:
        named(effort, resolved)
    given = {"score": score, "candidates": candidates, "workers": workers}
    options = {name: value for name, value in given.items() if value is not None}
    steps = Pipeline.parse(f"canonicalize,{Step(_PASS, options)}")
    program = request.open_teacher(teacher, factory=factory, trust_pickle=trust_pickle, example_inputs=example_inputs)
    limits, backend = budget if budget is not None else Budget(), request.backend_of(resolved)
    plan(steps, program, target=resolved, backend=backend, budget=limits)
    source = request.open_data(data, program, seed)
    request.check_data(program, source)
    kept = Store(Path(store) if store is not None else None)
    ctx = PassContext(
        teacher=program, target=resolved, backend=backend, data=source, budget=limits, workspace=kept.root, seed=seed,
        effort=effort, progress=progress if progress is not None else Silent(), ledger=Ledger(kept.root, resolved),
    )  # fmt: skip
    with disk.writing(output, _REMEDY):
        return _finish(_searched(steps, program, ctx, kept), output)


def _free(output: Path) -> Path:
    if output.is_dir() and any(output.iterdir()) and not (output / RESULT).is_file():
        raise UsageError(f"{output} exists and is not a search", "give another folder to --output; nothing was touched")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file", "give a folder to --output")
    return output


def _searched(steps: Pipeline, program: Program, ctx: PassContext, store: Store) -> Path:
    """The folder with the result; it stays in the store, so that the same search need not run again."""
    first, step = steps.passes
    ready = PassManager(store).run(Pipeline((first,)), program, ctx).program
    parts = [ready.fingerprint, ctx.data.fingerprint, ctx.target.fingerprint, ctx.seed, ctx.effort, ctx.budget.to_dict()]
    options = {k: v for k, v in all_options(step).items() if k != "workers"}
    key = key_of({"search": [step.name, step.version, options, *parts]})
    with disk.writing(store.root, store.remedy), store.lock(key):
        folder = store.workspace(key)
        try:
            step.run(ready, replace(ctx, workspace=folder))
        except (CompactorError, OSError, MemoryError):
            raise
        except Exception as error:
            raise InternalError(f"pass {step.name!r} failed: {type(error).__name__}: {error}") from error
    return folder


def _finish(folder: Path, output: Path) -> dict[str, Any]:
    text = (folder / RESULT).read_text(encoding="utf-8")
    result = json.loads(text)
    summary: dict[str, Any] = result["summary"] | {"target": result["target"]}
    output.mkdir(parents=True, exist_ok=True)
    disk.write_text(output / DRAWING, pareto.svg(summary))
    disk.write_text(output / RESULT, text)
    return summary
