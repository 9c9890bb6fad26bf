"""``compactor profile``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.cli import common

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from compactor.ir.program import Program
    from compactor.pipeline.profiling import Profile
    from compactor.report.artifact import Artifact

EPILOG = """\b
Examples:
  compactor profile teacher.pt2 --target jetson-orin
  compactor profile teacher.pt2 --target raspberry-pi-5 --precision int8 --top 20
  compactor profile artifact/ --target host-cpu --json
"""


@click.command("profile", epilog=EPILOG)
@click.argument("model", metavar="TEACHER|ARTIFACT", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="NAME", help="Device profile: see `compactor targets list`.")
@click.option("--precision", metavar="NAME", help="Predict at this precision instead of the model's own.")
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Lines per table; the rest is summed."
)
@common.teacher_options
@common.device_options
@common.json_option
def command(
    model: Path,
    target: str,
    precision: str | None,
    top: int,
    factory: str | None,
    trust_pickle: bool,
    device: str | None,
    device_minutes: float,
    as_json: bool,
) -> None:
    """Where the latency of a model goes on a device, kernel by kernel, and what would shorten it.

    All figures per kernel are predictions. The whole model is measured too where the device is this machine, or over
    SSH with --device. Teachers
    are profiled in canonical form, as `build` compares with them; nothing is compressed or written.
    """
    from compactor.pipeline.profiling import profile
    from compactor.pipeline.request import resolve_target
    from compactor.report.artifact import Artifact

    resolved = resolve_target(target)
    opened = _open(model, factory, trust_pickle)
    facts = describe(profile(opened, resolved, precision, device=device, minutes=device_minutes))
    facts["recorded"] = _recorded(opened) if isinstance(opened, Artifact) else None
    if as_json:
        common.emit(facts)
    else:
        _show(common.stdout(), facts, top)


def _open(path: Path, factory: str | None, trust_pickle: bool) -> "Program | Artifact":
    from compactor.pipeline.canonical import canonical
    from compactor.pipeline.request import open_teacher
    from compactor.report.artifact import MANIFEST, Artifact

    if (path / MANIFEST).is_file():
        return Artifact.open(path)
    return canonical(open_teacher(path, factory=factory, trust_pickle=trust_pickle))


def _recorded(artifact: "Artifact") -> dict[str, Any]:
    """What the manifest holds of the student: on which target, measured or predicted."""
    latency = artifact.manifest.metrics.latency_ms
    figures = [f.latency().to_dict() for f in (latency.student, latency.predicted) if f is not None]
    return {"target": artifact.manifest.target, "latencies": figures}


def describe(found: "Profile") -> dict[str, Any]:
    """A profile as JSON. Shares are of the predicted latency."""
    whole = found.predicted.p50 * 1e3
    return {
        "target": found.target,
        "precision": found.precision,
        "predicted": found.predicted.to_dict(),
        "measured": found.measured.to_dict() if found.measured is not None else None,
        "error": found.error,
        "call_us": found.call_us,
        "unmodelled": found.unmodelled,
        "kernels": [
            {
                "node": t.kernel.node,
                "kind": t.kernel.kind,
                "block": found.block.get(t.kernel.node),
                "us": t.us,
                "share": t.us / whole,
                "macs": t.kernel.macs,
                "bytes": t.bytes,
                "bound": t.bound,
            }
            for t in found.kernels
        ],
        "kinds_us": found.totals("kind"),
        "bounds_us": found.totals("bound"),
        "blocks_us": found.totals("block"),
        "what_if": [{"change": w.change, "ms": w.ms, "gain_ms": w.gain} for w in found.what_ifs],
    }


def _show(console: "Console", facts: dict[str, Any], top: int) -> None:
    from rich.text import Text

    from compactor.latency import Latency

    def line(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    line(f"{facts['target']} at {facts['precision']}: {Latency(**facts['predicted'])}")
    if facts["measured"] is not None:
        below = "above" if facts["error"] >= 0 else "below"
        line(f"{Latency(**facts['measured'])}: the prediction is {abs(facts['error']):.0%} {below}")
    if facts["recorded"] is not None:
        figures = ", ".join(str(Latency(**f)) for f in facts["recorded"]["latencies"])
        line(f"the artifact's manifest, for {facts['recorded']['target']}: {figures}")
    for op, count in facts["unmodelled"].items():
        line(f"! no model for the op {op} ({count} times): its work is not counted, so the interval is wider")
    console.print(_kernels(facts, top))
    for key, title in (("kinds_us", "by kind"), ("bounds_us", "by bound"), ("blocks_us", "by block")):
        if facts[key]:
            console.print(_totals(facts, key, title, top))
    if facts["what_if"]:
        console.print(_what_ifs(facts, top))


def _table(title: str, *columns: str, words: int) -> "Table":
    """A table whose first ``words`` columns hold words, the others numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < words else "right")
    return table


def _kernels(facts: dict[str, Any], top: int) -> "Table":
    table = _table("kernels", "kernel", "kind", "bound", "us", "share", "MACs", "bytes", words=3)
    for k in facts["kernels"][:top]:
        numbers = f"{k['us']:.1f}", f"{k['share']:.1%}", f"{k['macs']:,}", f"{k['bytes']:,}"
        table.add_row(k["node"], k["kind"], k["bound"], *numbers)
    if rest := facts["kernels"][top:]:
        us, share, macs, size = (sum(k[key] for k in rest) for key in ("us", "share", "macs", "bytes"))
        table.add_row(f"{len(rest)} more", "", "", f"{us:.1f}", f"{share:.1%}", f"{macs:,}", f"{size:,}")
    if facts["call_us"]:
        table.add_row("one call", "", "", f"{facts['call_us']:.1f}", _share(facts, facts["call_us"]), "", "")
    return table


def _totals(facts: dict[str, Any], key: str, title: str, top: int) -> "Table":
    table = _table(title, title.removeprefix("by "), "us", "share", words=1)
    rows = list(facts[key].items())
    for name, us in rows[:top]:
        table.add_row(name, f"{us:.1f}", _share(facts, us))
    if rest := rows[top:]:
        us = sum(us for _, us in rest)
        table.add_row(f"{len(rest)} more", f"{us:.1f}", _share(facts, us))
    return table


def _share(facts: dict[str, Any], us: float) -> str:
    return f"{us / 1e3 / facts['predicted']['p50']:.1%}"


def _what_ifs(facts: dict[str, Any], top: int) -> "Table":
    table = _table("what would shorten it (each alone, predicted)", "change", "ms", "gain in ms", words=1)
    for change in facts["what_if"][:top]:
        table.add_row(change["change"], f"{change['ms']:.3f}", f"{change['gain_ms']:.3f}")
    return table
