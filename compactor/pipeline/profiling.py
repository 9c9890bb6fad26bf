"""Where the latency of a model goes on a target, and what would shorten it: all from the target's own predictions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compactor.device import Device
from compactor.errors import UsageError
from compactor.ir.blocks import dying, live_nodes
from compactor.ir.graphs import op_name
from compactor.ir.kernels import UNKNOWN
from compactor.ir.program import Program
from compactor.ir.space import SearchSpace, space_of
from compactor.latency import KernelTime, Latency
from compactor.pipeline.lowering import measure
from compactor.pipeline.remote import MINUTES
from compactor.pipeline.request import backend_of, resolve_target
from compactor.report.artifact import Artifact
from compactor.target import Target, native


@dataclass(frozen=True)
class WhatIf:
    """A change, the predicted milliseconds after it and what it gains."""

    change: str
    ms: float
    gain: float


@dataclass(frozen=True)
class Profile:
    """Where the predicted latency of a model goes.

    Attributes:
        target, precision: what it was predicted for.
        predicted, measured: the whole model; ``measured`` is None where it cannot be, or at another precision.
        kernels: longest first. Their times and ``call_us`` sum to the prediction.
        block: the residual block of each kernel's node, where it lies in one.
        unmodelled: ops without a kernel model, with how often each occurs.
        what_ifs: changes that help, by gain.
    """

    target: str
    precision: str
    predicted: Latency
    measured: Latency | None
    kernels: tuple[KernelTime, ...]
    call_us: float
    block: dict[str, str]
    unmodelled: dict[str, int]
    what_ifs: tuple[WhatIf, ...]

    @property
    def error(self) -> float | None:
        """How far the prediction lies above what was measured, as a share of it."""
        return None if self.measured is None else self.predicted.p50 / self.measured.p50 - 1

    def totals(self, by: str) -> dict[str, float]:
        """Microseconds by ``kind``, ``bound`` or ``block``, longest first; kernels outside all blocks are left out."""
        sums: Counter[str] = Counter()
        for k in self.kernels:
            key = {"kind": k.kernel.kind, "bound": k.bound, "block": self.block.get(k.kernel.node)}[by]
            if key is not None:
                sums[key] += k.us  # type: ignore[assignment]
        return dict(sums.most_common())


def profile(
    model: Program | Artifact,
    target: str | Target,
    precision: str | None = None,
    *,
    device: str | Device | None = None,
    minutes: float = MINUTES,
) -> Profile:
    """Predict a model kernel by kernel at a precision (its own by default), and measure it where the device is.

    With ``device`` it is measured there, within ``minutes``. Raises `UnsupportedError` for an unknown target or a
    precision that it lacks, `UsageError` for a device and another precision than the model's own, `InputError` for a
    damaged artifact, and what `Device.run` raises.
    """
    resolved = resolve_target(target)
    program = model if isinstance(model, Program) else _student(model)
    chosen = precision if precision is not None else native(resolved, program.precision)
    kernels, space = program.kernels(), space_of(program)
    predicted, times = resolved.predict(kernels, chosen), resolved.breakdown(kernels, chosen)
    if device is not None and chosen != program.precision:
        raise UsageError(
            f"the model is {program.precision}: it cannot be measured at {chosen}", "leave out --precision, or --device"
        )
    here = resolved.present and backend_of(resolved).installed() and chosen == program.precision
    ops = {n.name: op_name(n) for n in program.graph.nodes}
    changes = [*_precisions(times, resolved, chosen), *_removals(space, resolved, chosen)]
    return Profile(
        target=resolved.name,
        precision=chosen,
        predicted=predicted,
        measured=measure(model, resolved, device, minutes) if here or device is not None else None,
        kernels=tuple(sorted(times, key=lambda t: -t.us)),
        call_us=max(0.0, predicted.p50 * 1e3 - sum(t.us for t in times)),
        block=_blocks(space),
        unmodelled=dict(Counter(ops[k.node] for k in kernels if k.kind == UNKNOWN)),
        what_ifs=_ranked(changes, predicted.p50),
    )


def _student(artifact: Artifact) -> Program:
    artifact.require_whole()
    return artifact.student()


def _blocks(space: SearchSpace) -> dict[str, str]:
    """The innermost block of every node that lies in one."""
    graph = space.program.graph
    nodes, live = {n.name: n for n in graph.nodes}, live_nodes(graph, {})
    inside = {b.name: dying(nodes[b.entry], nodes[b.exit], live) for b in space.blocks}
    return {n.name: name for name in sorted(inside, key=lambda b: -len(inside[b])) for n in inside[name]}


def _precisions(times: Sequence[KernelTime], target: Target, now: str) -> Iterator[tuple[str, float]]:
    """(change, milliseconds) of the whole model at every other precision, and of one kernel kind alone at int8."""
    kernels, whole = [t.kernel for t in times], target.predict([t.kernel for t in times], now).p50
    for other in target.precisions:
        if other != now:
            yield f"all at {other}", target.predict(kernels, other).p50
    if "int8" not in target.precisions or now == "int8":
        return
    gains: Counter[str] = Counter()
    for before, after in zip(times, target.breakdown(kernels, "int8"), strict=True):
        if before.kernel.macs:
            gains[before.kernel.kind] += before.us - after.us  # type: ignore[assignment]
    if len(gains) > 1:
        yield from ((f"{kind} kernels at int8", whole - us / 1e3) for kind, us in gains.items())


def _removals(space: SearchSpace, target: Target, precision: str) -> Iterator[tuple[str, float]]:
    """(change, milliseconds) without each block, and with half of each group."""
    for block in space.blocks:
        yield f"without block {block.name}", _predicted(space, target, precision, {}, (block.name,))
    for group in space.groups:
        half = range(group.size // 2)
        change = f"half of {group.name} ({group.kind}, {group.size} to {len(half)})"
        yield change, _predicted(space, target, precision, {group.name: tuple(half)}, ())


def _predicted(
    space: SearchSpace, target: Target, precision: str, kept: dict[str, tuple[int, ...]], dropped: tuple[str, ...]
) -> float:
    return target.predict(space.kernels(space.choose(kept, dropped)), precision).p50


def _ranked(changes: Sequence[tuple[str, float]], now: float) -> tuple[WhatIf, ...]:
    """The changes that help, by gain."""
    helpful = [WhatIf(change, ms, now - ms) for change, ms in changes if ms < now]
    return tuple(sorted(helpful, key=lambda w: -w.gain))
