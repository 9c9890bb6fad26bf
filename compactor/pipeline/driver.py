"""The build: a teacher in, a verified artifact out."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, nn

from compactor import registry, scoring
from compactor.backend import Backend
from compactor.budget import Budget
from compactor.data import Batch, DataSource
from compactor.device import Device
from compactor.errors import UsageError
from compactor.ir.program import Program
from compactor.parity import Parity
from compactor.pipeline import disk, records, remote, request
from compactor.pipeline.context import PassContext, Progress, Silent
from compactor.pipeline.instruments import Announce, Dumps, Instrument
from compactor.pipeline.ledger import Ledger
from compactor.pipeline.lowering import Model, check_parity, latencies, lower
from compactor.pipeline.manager import PassManager, Run
from compactor.pipeline.pipelines import EFFORTS, from_search, named
from compactor.pipeline.plan import plan
from compactor.pipeline.store import Store
from compactor.pipeline.text import Pipeline
from compactor.report.artifact import STUDENT, Artifact, Draft, draft
from compactor.report.manifest import Latencies, LatencyFigure, Metrics, Score, Sizes
from compactor.target import Target

_PARITY_SAMPLES = 32
_OUTPUT_REMEDY = "free some space, or point --output (and TMPDIR) to another disk; an earlier artifact is kept"


@dataclass(frozen=True)
class _Build:
    """One build, resolved."""

    pipeline: Pipeline
    teacher: Program
    target: Target
    backend: Backend
    data: DataSource
    budget: Budget
    effort: str
    seed: int
    progress: Progress
    store: Store
    dumps: Path | None
    device: Device | None


def build(
    teacher: Program | nn.Module | str | Path,
    *,
    target: str | Target,
    data: DataSource | str | Path | None = None,
    budget: Budget | None = None,
    effort: str = "balanced",
    pipeline: str | Pipeline | None = None,
    search: str | Path | None = None,
    factory: str | None = None,
    trust_pickle: bool = False,
    example_inputs: tuple[Tensor, ...] | None = None,
    seed: int = 0,
    output: str | Path = "artifact",
    progress: Progress | None = None,
    store: str | Path | None = None,
    dumps: str | Path | None = None,
    device: str | Device | None = None,
    minutes: float = remote.MINUTES,
) -> Artifact:
    """Compress a teacher for a target and write the artifact.

    Args:
        teacher: a Program, a live module (with ``example_inputs``), or a path that `compactor.load` reads.
        target: name of a device profile, or a `Target`.
        data: folder, file, ``module:callable`` or `DataSource`; without it inputs are synthetic and scores unverified.
        budget: hard limits; the artifact's ``manifest.gate.passed`` says whether they hold.
        effort: ``quick``, ``balanced`` or ``max``; names the pipeline unless ``pipeline`` gives one.
        search: what `compactor.search` wrote; the student is chosen from it instead of by the pipeline's search.
        output: the artifact's folder; appears whole or not at all, an earlier artifact is replaced.
        store: folder of stage results, default ``COMPACTOR_STORE`` or the user's cache folder.
        dumps: folder for the IR before and after every pass.
        device: where the result is checked and measured, such as ``ssh://user@host``, within ``minutes``.

    Raises:
        UsageError, InputError, UnsupportedError, MissingRuntimeError: before any work, with what to do.
        ParityError: a lowered model does not compute what its Program computes.
        DeviceError: the device cannot be reached or trusted, or the connection failed.
    """
    resolved = request.resolve_target(target)
    steps = _steps(pipeline, search, effort, resolved)
    elsewhere = None if device is None else remote.open_device(device, minutes)
    with disk.writing(Path(output), _OUTPUT_REMEDY), draft(output) as work:
        program = request.open_teacher(
            teacher, factory=factory, trust_pickle=trust_pickle, example_inputs=example_inputs
        )
        backend = request.backend_of(resolved)
        limits = budget if budget is not None else Budget()
        plan(steps, program, target=resolved, backend=backend, budget=limits)
        if elsewhere is not None:
            remote.check(elsewhere, resolved, backend)
        source = request.open_data(data, program, seed)
        request.check_data(program, source)
        _check_drop(limits, source)
        job = _Build(
            pipeline=steps, teacher=program, target=resolved, backend=backend, data=source, budget=limits,
            effort=effort, seed=seed, progress=progress if progress is not None else Silent(),
            store=Store(Path(store) if store is not None else None), dumps=Path(dumps) if dumps is not None else None,
            device=elsewhere,
        )  # fmt: skip
        return _finish(job, work)


def _steps(pipeline: str | Pipeline | None, search: str | Path | None, effort: str, target: Target) -> Pipeline:
    """The passes asked for: those given, or the effort's; the student from an earlier search, if there is one."""
    if effort not in EFFORTS:
        named(effort, target)
    steps = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline or named(effort, target))
    return steps if search is None else from_search(steps, Path(search))


def _check_drop(budget: Budget, data: DataSource) -> None:
    if budget.drop is not None and data.synthetic:
        raise UsageError(
            f"a drop limit of {budget.drop:g} points cannot be verified on synthetic inputs",
            "give --data with samples of the task, or leave out --drop",
        )


def _finish(job: _Build, work: Draft) -> Artifact:
    if job.teacher.meta.get("assumed"):
        job.progress.note(job.teacher.meta["assumed"])
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="compactor-")))
        ctx = _context(job, scratch)
        baseline = _baseline(job, ctx)
        ctx = replace(ctx, budget=_absolute(job.budget, baseline, ctx))
        run = _manager(job).run(job.pipeline, job.teacher, ctx)
        artifact = _write(job, work, baseline, run, scratch)
    job.store.prune()
    return artifact


def _context(job: _Build, scratch: Path) -> PassContext:
    return PassContext(
        teacher=job.teacher, target=job.target, backend=job.backend, data=job.data, budget=job.budget,
        workspace=scratch, seed=job.seed, effort=job.effort, progress=job.progress,
        ledger=Ledger(job.store.root, job.target),
    )  # fmt: skip


def _manager(job: _Build) -> PassManager:
    instruments: list[Instrument] = [Announce(job.progress)]
    if job.dumps is not None:
        instruments.append(Dumps(job.dumps))
    return PassManager(job.store, instruments)


def _baseline(job: _Build, ctx: PassContext) -> Program:
    """The teacher as it would run without us: canonical, nothing else."""
    if "canonicalize" not in registry.names("compactor.passes"):
        return job.teacher
    return PassManager(job.store).run(Pipeline.parse("canonicalize"), job.teacher, ctx).program


def _absolute(budget: Budget, baseline: Program, ctx: PassContext) -> Budget:
    """The budget with a latency share turned into milliseconds."""
    if budget.latency_share is None:
        return budget
    teacher = ctx.latency(baseline).p50
    return Budget(latency=round(budget.latency_share * teacher, 6), size=budget.size, drop=budget.drop)


def _write(job: _Build, work: Draft, baseline: Program, run: Run, scratch: Path) -> Artifact:
    job.progress.update(0, 3, "lowering")
    teacher = lower(baseline, job.backend, job.target, _fresh(scratch / "teacher"))
    student = lower(run.program, job.backend, job.target, work.subfolder(job.backend.name))
    run.program.save(work.folder / STUDENT)
    job.progress.update(1, 3, "parity")
    parity = _parities(job, teacher, student)
    job.progress.update(2, 3, "score and latency")
    found = _examined(job, teacher, student)
    metrics = _metrics(job, teacher, student, found)
    job.progress.update(3, 3, "done")
    manifest = records.manifest(
        pipeline=str(job.pipeline), history=run.records, teacher=job.teacher, student=run.program,
        target=job.target, model=student, data=job.data, metrics=metrics, budget=job.budget,
        parity=parity if found is None else found.parity["student"], seed=job.seed, root=work.folder,
        device=None if found is None else found.facts,
    )  # fmt: skip
    return work.finish(manifest)


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _parities(job: _Build, teacher: Model, student: Model) -> Parity | None:
    inputs = _samples(job).inputs
    check_parity(teacher, inputs, "teacher")
    return check_parity(student, inputs, "student")


def _samples(job: _Build) -> Batch:
    return job.data.calibration(min(_PARITY_SAMPLES, len(job.data.train)), job.seed)


def _examined(job: _Build, teacher: Model, student: Model) -> remote.Found | None:
    """Parity and latencies of both on the device that was given. Raises `ParityError`."""
    if job.device is None:
        return None
    models = {"teacher": (teacher.program, teacher.lowered), "student": (student.program, student.lowered)}
    found = remote.examine(job.device, job.target, job.backend, models, _samples(job).inputs)
    for name, figures in found.parity.items():
        figures.require(f"the {name} on {job.device.name}")
    return found


def _metrics(job: _Build, teacher: Model, student: Model, there: remote.Found | None) -> Metrics:
    if there is None:
        before, after = latencies([teacher, student], job.backend, job.target)
    else:
        before, after = there.latencies["teacher"], there.latencies["student"]
    found = scoring.score(teacher.run, student.run, job.data)
    samples = len(job.data.dev if job.data.test is None else job.data.test)
    return Metrics(
        score=Score(**found.to_dict(), samples=samples),
        latency_ms=Latencies(teacher=LatencyFigure.of(before), student=LatencyFigure.of(after)),
        size_bytes=Sizes(teacher=teacher.lowered.size_bytes, student=student.lowered.size_bytes),
    )
