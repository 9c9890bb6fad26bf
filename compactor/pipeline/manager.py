"""Runs a pipeline: after each pass it verifies, checks what the pass declared, records and stores."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from compactor.errors import CompactorError, InternalError
from compactor.ir.program import Program
from compactor.ir.verify import verify
from compactor.pipeline import disk, properties
from compactor.pipeline.context import PassContext
from compactor.pipeline.instruments import Instrument
from compactor.pipeline.passes import Pass, PassResult
from compactor.pipeline.store import Store, Stored, key_of
from compactor.pipeline.text import Pipeline, all_options
from compactor.pipeline.versions import numerics, tool_versions

EXACT = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2, "int8": 1e-2}
"""Largest relative error that an exact pass may show on the probe, by precision."""
_PROBES = 4
_NOT_HASHED = ("tokenizer",)


@dataclass(frozen=True)
class Run:
    """What a pipeline made: the Program, and one record {pass, version, config, seconds, metrics} per pass."""

    program: Program
    records: tuple[dict[str, Any], ...]


class PassManager:
    """Runs pipelines over Programs, with results in a store and instruments looking on."""

    def __init__(self, store: Store, instruments: Sequence[Instrument] = ()) -> None:
        self.store = store
        self.instruments = tuple(instruments)

    def run(self, pipeline: Pipeline, program: Program, ctx: PassContext) -> Run:
        """The Program after all passes. ``ctx.workspace`` is replaced by each stage's own folder.

        Raises `CompactorError` from passes as they are, and `InternalError` naming the pass, and those before it, that
        broke the Program or a promise.
        """
        held = properties.initial(program)
        records: list[dict[str, Any]] = []
        for position, step in enumerate(pipeline):
            held = properties.flow(held, step)
            stage = _Stage(step, pipeline.names[:position], held, program, ctx)
            for instrument in self.instruments:
                instrument.before(step, position, len(pipeline), program)
            stored, reused = self._result(stage)
            program = _continued(program, step, stored.program)
            records.append(stored.record)
            for instrument in self.instruments:
                instrument.after(step, position, len(pipeline), program, stored.record, reused)
        return Run(program, tuple(records))

    def _result(self, stage: "_Stage") -> tuple[Stored, bool]:
        key = stage.key()
        with disk.writing(self.store.root, self.store.remedy), self.store.lock(key):
            known = self.store.load(key)
            if known is not None:
                return known, True
            workspace = self.store.workspace(key)
            program, record = stage.run(replace(stage.ctx, workspace=workspace, outputs=self.store.outputs()))
            return self.store.save(key, program, record), False


@dataclass(frozen=True)
class _Stage:
    step: Pass
    before: Sequence[str]
    held: frozenset[str]
    program: Program
    ctx: PassContext

    def key(self) -> str:
        ctx, step = self.ctx, self.step
        return key_of(
            {
                "input": self.program.fingerprint,
                "meta": _hashed_meta(self.program),
                "pass": [step.name, step.version, all_options(step)],
                "data": ctx.data.fingerprint,
                "target": ctx.target.fingerprint,
                "teacher": ctx.teacher.fingerprint,
                "seed": ctx.seed,
                "effort": ctx.effort,
                "budget": ctx.budget.to_dict(),
                "versions": tool_versions(ctx.target.backend, step.needs),
                "numerics": numerics(),
            }
        )

    def run(self, ctx: PassContext) -> tuple[Program, dict[str, Any]]:
        started = time.perf_counter()
        result = self._transform(ctx)
        try:
            self._check(result.program, ctx)
        except InternalError as error:
            raise InternalError(f"{self._who()} broke the Program: {error.message}") from error
        record = {
            "pass": self.step.name,
            "version": self.step.version,
            "config": all_options(self.step),
            "seconds": round(time.perf_counter() - started, 3),
            "metrics": result.metrics,
        }
        return result.program, record

    def _transform(self, ctx: PassContext) -> PassResult:
        try:
            return self.step.run(self.program, ctx)
        except CompactorError as error:
            error.add_note(f"in {self._who()}")
            raise
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise InternalError(f"{self._who()} failed: {type(error).__name__}: {error}") from error

    def _check(self, program: Program, ctx: PassContext) -> None:
        if program is self.program:
            return
        verify(program)
        properties.check(program, self.held)
        if self.step.exact:
            check_exact(self.program, program, ctx.data.calibration(_PROBES, ctx.seed).inputs)

    def _who(self) -> str:
        after = f" after {', '.join(self.before)}" if self.before else " as the first pass"
        return f"pass {self.step.name!r}{after}"


def check_exact(before: Program, after: Program, inputs: Sequence[Tensor]) -> None:
    """Raise `InternalError` when outputs differ by more than `EXACT` of their largest value."""
    old, new = _outputs(before, inputs), _outputs(after, inputs)
    if len(old) != len(new):
        raise InternalError(f"an exact pass turned {len(old)} outputs into {len(new)}")
    limit = EXACT[before.precision]
    for name, a, b in zip(before.outputs, old, new, strict=True):
        if a.shape != b.shape:
            raise InternalError(f"an exact pass turned the shape {tuple(a.shape)} of {name} into {tuple(b.shape)}")
        error = float((a.float() - b.float()).abs().max() / a.float().abs().max().clamp_min(1e-12))
        if not error <= limit:
            raise InternalError(f"an exact pass changed {name} by {error:.2e} (relative), {limit:.0e} is allowed")


def _outputs(program: Program, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    outputs = program(*inputs)
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _hashed_meta(program: Program) -> Mapping[str, Any]:
    return {k: v for k, v in program.meta.items() if k not in _NOT_HASHED}


def _continued(before: Program, step: Pass, after: Program) -> Program:
    """The result with its own history: times and measurements stay out, so equal builds give equal files."""
    record = {"pass": step.name, "version": step.version, "config": all_options(step)}
    local = {k: v for k, v in before.meta.items() if k in _NOT_HASHED}
    return after.evolve(history=(*before.history, record), meta={**after.meta, **local})
