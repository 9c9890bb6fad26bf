"""What each kernel takes as lowered, where the device is here and its runtime tells: shares of the measured latency."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from compactor.backend import Profiler
from compactor.ir.program import Program
from compactor.pipeline.context import PassContext
from compactor.pipeline.disk import write_json
from compactor.pipeline.parts import kernels_by_name, parts

_SECONDS = 0.5


def profiled(program: Program, name: str, predicted: Sequence[float], ctx: PassContext) -> list[float] | None:
    """Microseconds of each kernel, which sum to the latency of the whole; None where nothing tells.

    Kernels that ran in one go share their time as ``predicted``. Kept in the workspace under ``name``, so that a
    resumed build decides the same.
    """
    if not (ctx.target.present and ctx.backend.installed() and isinstance(ctx.backend, Profiler)):
        return None
    path = ctx.workspace / f"profile-{name}.json"
    if not path.is_file():
        write_json(path, _profile(program, predicted, ctx.backend, ctx))
    found: list[float] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _profile(program: Program, predicted: Sequence[float], profiler: Profiler, ctx: PassContext) -> list[float]:
    with TemporaryDirectory(dir=ctx.workspace) as folder:
        lowered = ctx.backend.lower(program, ctx.target, Path(folder))
        executed = profiler.profile(lowered, program.example_inputs(batch=1), seconds=_SECONDS)
    shares = [0.0] * len(predicted)
    for part in parts(executed, kernels_by_name(program, lowered.origins), len(predicted)):
        whole = sum(predicted[i] for i in part.kernels)
        for i in part.kernels:
            shares[i] = part.us * predicted[i] / whole
    scale = 1e3 * ctx.latency(program).p50 / sum(shares)
    return [share * scale for share in shares]
