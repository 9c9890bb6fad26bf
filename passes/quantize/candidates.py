"""The precisions `quantize.fastest` chooses from: each made, timed, scored, or left out with the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.passes.quantize.cast import cast_program
from compactor.passes.quantize.judge import Judge
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.pipeline.context import PassContext

FLOATS = ("float32", "float16", "bfloat16")
ORDER = (*FLOATS, "int8")
"""Simplest first: a tie in latency goes to the earlier one."""


@dataclass
class Candidate:
    """One precision: ``reason`` says why it was chosen or not; ``score`` in percent, ``size`` in bytes."""

    precision: str
    program: Program | None = None
    latency: Latency | None = None
    score: float | None = None
    size: int | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For metrics; the Program stays out."""
        latency = None if self.latency is None else self.latency.to_dict()
        facts = {"latency": latency, "score": self.score, "size": self.size}
        return {"precision": self.precision, **{k: v for k, v in facts.items() if v is not None}, "reason": self.reason}


def make(precision: str, program: Program, ctx: PassContext, samples: int, judge: Judge) -> Candidate:
    """The candidate, with its latency and score; without a Program where it cannot be had."""
    if precision not in ctx.target.precisions:
        return Candidate(precision, reason=f"{ctx.target.name} does not run it")
    if precision == "int8" and find_spec("nncf") is None:
        return Candidate(precision, reason="nncf is not installed (pip install 'compactor[quantize]')")
    return tried(precision, lambda: _MAKERS[precision](program, ctx, samples), ctx, judge)


def tried(precision: str, build: Callable[[], Program], ctx: PassContext, judge: Judge) -> Candidate:
    """The candidate that ``build`` makes, timed and scored; without a Program where it cannot be had."""
    candidate = Candidate(precision)
    try:
        _complete(candidate, build(), ctx, judge)
    except UnsupportedError as error:
        candidate.reason = error.message
    return candidate


def _complete(candidate: Candidate, made: Program, ctx: PassContext, judge: Judge) -> None:
    obstacles = ctx.backend.supports(made, ctx.target)
    if obstacles:
        candidate.reason = obstacles[0]
        return
    candidate.latency = ctx.latency(made)
    candidate.size, candidate.score = _weigh(made, ctx, judge)
    candidate.program = made


def _weigh(program: Program, ctx: PassContext, judge: Judge) -> tuple[int | None, float]:
    """Bytes as lowered, where they matter, and the score: of the lowered model where its runtime is here.

    That is what will run, and for int8 it is faster than torch, which computes the quantizers one by one.
    """
    if ctx.budget.size is None and not ctx.backend.installed():
        return None, judge.score(program)
    with TemporaryDirectory(dir=ctx.workspace) as folder:
        lowered = ctx.backend.lower(program, ctx.target, Path(folder))
        score = judge.score(ctx.backend.open(lowered) if ctx.backend.installed() else program)
        return None if ctx.budget.size is None else lowered.size_bytes, score


def _quantized(program: Program, ctx: PassContext, samples: int) -> Program:
    return PostTrainingQuantization(PtqConfig(samples=samples)).run(program, ctx).program


_MAKERS: dict[str, Callable[[Program, PassContext, int], Program]] = {
    "float32": lambda program, ctx, samples: program,
    "float16": lambda program, ctx, samples: cast_program(program, "float16")[0],
    "bfloat16": lambda program, ctx, samples: cast_program(program, "bfloat16")[0],
    "int8": _quantized,
}
