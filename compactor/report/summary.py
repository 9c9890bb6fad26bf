"""What people read: the before/after table and ``summary.txt``."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from compactor.report.manifest import Check, Gate, Latencies, LatencyFigure, Manifest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = tuple[str, str, str, str]


def rows(manifest: Manifest) -> list[Row]:
    """Before/after as (what, teacher, student, change)."""
    score, latency, size = manifest.metrics.score, manifest.metrics.latency_ms, manifest.metrics.size_bytes
    gained = 0.0 - round(score.drop, 2)  # never minus zero
    return [
        (_score_label(manifest), f"{score.teacher:.2f} %", f"{score.student:.2f} %", f"{gained:+.2f} points"),
        *_latency_rows(latency),
        ("size", _bytes(size.teacher), _bytes(size.student), _ratio(size.teacher, size.student, "smaller")),
        _count("parameters", manifest.teacher.parameters, manifest.student.parameters),
        _count("MACs", manifest.teacher.macs, manifest.student.macs),
        ("precision", manifest.teacher.precision, manifest.student.precision, ""),
    ]


def _latency_rows(latency: Latencies) -> list[Row]:
    """One row, or one per kind where only the student was measured: ratios never cross kinds."""
    pair = latency.pair()
    rows = []
    if pair is None or pair[1] is not latency.student:
        rows.append(("latency, batch 1", _missing(latency.teacher), _latency(latency.student), ""))
    if pair is not None:
        ratio = _ratio(pair[0].p50, pair[1].p50, "faster")
        rows.append(("latency, batch 1", _latency(pair[0]), _latency(pair[1]), ratio))
    return rows


def _missing(teacher: LatencyFigure) -> str:
    return "not measured" if teacher.basis == "predicted" else _latency(teacher)


def notes(manifest: Manifest) -> list[str]:
    """What must not be overlooked."""
    lines = [manifest.teacher.assumed] if manifest.teacher.assumed else []
    if manifest.data.synthetic:
        lines.append("accuracy unverified: no data was given, the inputs were synthetic")
    elif manifest.metrics.score.name == "agreement":
        lines.append("the data has no labels: the score is agreement with the teacher")
    latency = manifest.metrics.latency_ms
    if latency.student.basis == "predicted":
        lines.append(f"latency is predicted, not measured: {manifest.target} is not present here")
    elif latency.teacher.basis == "predicted":
        lines.append("the teacher was not measured here: its latency is predicted, and compared with predictions only")
    return lines


def table(manifest: Manifest) -> "Table":
    """The before/after table for a terminal."""
    from rich.table import Table

    result = Table(title=f"{manifest.target} ({manifest.backend})", title_justify="left")
    for name in ("", "teacher", "student", "change"):
        result.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in rows(manifest):
        result.add_row(*row)
    return result


def gate_table(gate: Gate) -> "Table":
    """Limits and figures side by side, for a terminal."""
    from rich.table import Table

    result = Table(title="gate: " + ("passed" if gate.passed else "MISSED"), title_justify="left")
    for name in ("limit", "at most", "value", "result"):
        result.add_column(name, justify="left" if name == "limit" else "right", no_wrap=True)
    for check in gate.checks:
        result.add_row(*_check_row(check))
    return result


def show(console: "Console", manifest: Manifest) -> None:
    """Print the before/after table, what must not be overlooked, and the gate."""
    console.print(table(manifest))
    for note in notes(manifest):
        console.print(f"! {note}", markup=False)
    if manifest.gate.checks:
        console.print(gate_table(manifest.gate))


def text(manifest: Manifest) -> str:
    """The content of ``summary.txt``: plain text, made from the manifest alone."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=120, no_color=True, highlight=False, markup=False)
    console.print(f"compactor {manifest.compactor}, seed {manifest.seed}, pipeline {manifest.pipeline}")
    show(console, manifest)
    for record in manifest.parity:
        verdict = "passed" if record.passed else "FAILED"
        console.print(f"parity {record.backend}: relative error {record.error:.2e}, {verdict}")
    for stage in manifest.history:
        console.print(f"{stage.pass_:24s} {stage.seconds:8.1f} s")
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _score_label(manifest: Manifest) -> str:
    score = manifest.metrics.score
    names = {"accuracy": "accuracy", "agreement": "agreement with teacher", "unverified": "agreement, UNVERIFIED"}
    return f"{names[score.name]} ({score.split})"


def _latency(figure: LatencyFigure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.p50:.3f} ms ({figure.basis})"
    return f"{figure.p50:.3f} ms ({figure.basis},\n{figure.low:.3f} to {figure.high:.3f})"


def _bytes(size: float) -> str:
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"


def _ratio(before: float, after: float, better: str) -> str:
    return f"{before / after:.2f}x {better}" if after else ""


def _count(name: str, before: int, after: int) -> Row:
    return name, f"{before:,}", f"{after:,}", f"{100 * (after - before) / before:+.1f} %" if before else ""


def _milliseconds(value: float) -> str:
    return f"{value:.3f} ms"


def _points(value: float) -> str:
    return f"{value:.2f} points"


_WRITE: dict[str, Callable[[float], str]] = {"latency": _milliseconds, "size": _bytes, "drop": _points}


def _check_row(check: Check) -> tuple[str, str, str, str]:
    write = _WRITE[check.name]
    value = "unverified" if check.value is None else write(check.value)
    if check.value is not None and check.basis is not None:
        value = f"{value} ({check.basis})"
    return check.name, write(check.limit), value, "passed" if check.passed else "MISSED"
