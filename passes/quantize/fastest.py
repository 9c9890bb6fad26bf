"""`Fastest`: the precision that pays on this target, not the one that sounds smallest."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from compactor.errors import UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.passes.quantize.candidates import ORDER, Candidate, make
from compactor.passes.quantize.judge import Judge
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult

_UNSURE = 0.2
"""Models measured one after the other on a machine that is not quiet may swap places within this share."""


class FastestConfig(PassConfig):
    """Options of `quantize.fastest`.

    ``drop``: percentage points of dev score that a precision may cost against the float32 student, or the build's own
    drop where that is less. ``tie``: latencies this near (share) to the fastest count as equal. ``samples`` calibrate
    int8; ``dev_samples`` are scored.
    """

    drop: float = Field(default=1.0, ge=0)
    tie: float = Field(default=0.03, ge=0, le=1)
    samples: int = Field(default=300, ge=1)
    dev_samples: int = Field(default=2000, ge=1)


class Fastest(Pass):
    """Make every precision the target runs, time and score each, keep the fastest that is accurate enough.

    Those within a fifth of the fastest are timed again, in turns.

    The student is the yardstick, not the teacher: where ``dev`` was set aside from what the teacher learned, the
    teacher's score on it is beyond reach; the gate holds the student to the build's drop. Where the runtime is here,
    the lowered models are scored. A precision over the size budget is passed over while another one fits. Metrics:
    ``chosen``, ``score`` (name, floor), ``candidates`` with latency, score and reason each.
    """

    name: ClassVar[str] = "quantize.fastest"
    version: ClassVar[int] = 3
    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "batchnorm_folded"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "fold_batchnorm", "search.uniform", "distill.logits")
    Config: ClassVar[type[PassConfig]] = FastestConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Choose. Raises `UnsupportedError` when the target runs none of the precisions this version can make."""
        judge = Judge.of(ctx, self.config.dev_samples)
        candidates = self.uniform(program, ctx, judge, ORDER)
        return self.result(program, candidates, self.floor(program, judge, candidates, ctx), judge, ctx)

    def uniform(self, program: Program, ctx: PassContext, judge: Judge, precisions: Sequence[str]) -> list[Candidate]:
        """The whole Program in each of these. Raises `UsageError` for one that is not float32."""
        if program.precision != "float32":
            raise UsageError(f"the model is {program.precision} already", f"let {self.name} choose from float32")
        candidates = []
        for i, precision in enumerate(precisions):
            ctx.progress.update(i, len(precisions), precision)
            candidates.append(make(precision, program, ctx, self.config.samples, judge))
        return candidates

    def result(
        self, program: Program, candidates: Sequence[Candidate], floor: float, judge: Judge, ctx: PassContext
    ) -> PassResult:
        """The choice among candidates. Raises `UnsupportedError` where none could be made."""
        made = [c for c in candidates if c.program is not None]
        if not made:
            reasons = "; ".join(f"{c.precision}: {c.reason}" for c in candidates)
            raise UnsupportedError(
                f"no precision can be made for {ctx.target.name}: {reasons}", "choose another target"
            )
        _settle(_accurate(_fitting(made, ctx.budget.size), floor), ctx)
        chosen = choose(made, floor, ctx.budget.size, self.config.tie)
        ctx.progress.note(f"precision: {chosen.precision}, {chosen.latency}")
        metrics = {
            "chosen": chosen.precision,
            "score": {"name": judge.name, "samples": len(judge.split), "floor": round(floor, 4)},
            "candidates": [c.to_dict() for c in candidates],
        }
        return PassResult(chosen.program or program, chosen.precision != "float32", metrics)

    def floor(self, program: Program, judge: Judge, candidates: Sequence[Candidate], ctx: PassContext) -> float:
        """The least dev score that is accurate enough."""
        plain = next((c.score for c in candidates if c.precision == "float32"), None)
        allowed = self.config.drop if ctx.budget.drop is None else min(self.config.drop, ctx.budget.drop)
        return (judge.score(program) if plain is None else plain) - float(allowed)


def choose(made: Sequence[Candidate], floor: float, size: int | None, tie: float) -> Candidate:
    """The simplest of the fastest that are accurate and small enough; every candidate gets its reason.

    Where none is accurate enough, the most accurate one that fits, the faster of equals.
    """
    small = _fitting(made, size)
    good = _accurate(small, floor)
    tied = _near(good, tie)
    chosen = min(tied, key=lambda c: (_rank(c), _p50(c))) if tied else max(small, key=lambda c: (_score(c), -_p50(c)))
    for candidate in made:
        candidate.reason = _reason(candidate, chosen, small, good, tied)
    return chosen


def _fitting(made: Sequence[Candidate], size: int | None) -> list[Candidate]:
    """Those within the size budget, or the smallest where none is."""
    return [c for c in made if size is None or (c.size or 0) <= size] or [min(made, key=lambda c: c.size or 0)]


def _accurate(candidates: Sequence[Candidate], floor: float) -> list[Candidate]:
    """Those that score enough."""
    return [c for c in candidates if _score(c) >= floor]


def _near(candidates: Sequence[Candidate], share: float) -> list[Candidate]:
    """Those at most this share slower than the fastest."""
    best = min(map(_p50, candidates), default=0.0)
    return [c for c in candidates if _p50(c) <= best * (1 + share)]


def _settle(contenders: Sequence[Candidate], ctx: PassContext) -> None:
    """Time those in turns whose latencies, measured one after the other, are too near to tell which is faster."""
    close = {c.precision: c for c in _near(contenders, _UNSURE)}
    if len(close) > 1:
        programs = {name: c.program for name, c in close.items() if c.program is not None}
        for name, latency in ctx.compared(programs).items():
            close[name].latency = latency


def _rank(candidate: Candidate) -> int:
    """How simple it is: mixtures come last."""
    return ORDER.index(candidate.precision) if candidate.precision in ORDER else len(ORDER)


def _score(candidate: Candidate) -> float:
    return candidate.score if candidate.score is not None else 0.0


def _p50(candidate: Candidate) -> float:
    return candidate.latency.p50 if candidate.latency is not None else float("inf")


def _reason(
    candidate: Candidate,
    chosen: Candidate,
    small: Sequence[Candidate],
    good: Sequence[Candidate],
    tied: Sequence[Candidate],
) -> str:
    if candidate is chosen:
        if not good:
            return "none is accurate enough; the most accurate"
        return "fastest" if len(tied) == 1 else "as fast as the fastest, and the simplest of those"
    if candidate not in small:
        return "larger than the size budget"
    if good and candidate not in good:
        return "not accurate enough"
    if candidate in tied:
        return f"no faster than {chosen.precision}, which is simpler"
    return f"slower than {chosen.precision}" if good else f"less accurate than {chosen.precision}"
