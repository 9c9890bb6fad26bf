"""``compactor search``."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.cli import common

if TYPE_CHECKING:
    from rich.console import Console

EPILOG = """\b
Examples:
  compactor search teacher.pt2 --target raspberry-pi-5 --latency 5ms --data data/ -o found/
  compactor build teacher.pt2 --target raspberry-pi-5 --latency 5ms --data data/ --search found/
  compactor build teacher.pt2 --target jetson-orin --latency 1ms --data data/ --search found/
  compactor search bert/ --target host-cpu --latency 25% --score relation+macs --json
"""


@click.command("search", epilog=EPILOG)
@click.argument("teacher", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="NAME", help="Device profile: see `compactor targets list`.")
@click.option("--data", metavar="PATH|MODULE:CALLABLE", help="Data of the task; scores use its inputs.")
@click.option("--latency", metavar="TIME", help="Every candidate keeps to it: 5ms, 800us, or 25% of the teacher's.")
@click.option("--size", metavar="SIZE", help="Every candidate keeps to it: 1MB, 512KiB.")
@click.option(
    "--effort", type=click.Choice(["quick", "balanced", "max"]), default="balanced", show_default=True,
    help="How many candidates to score.",
)  # fmt: skip
@click.option("--score", default="default", show_default=True, metavar="PROXY[+PROXY...]", help="Whose ranks are summed.")
@click.option("--candidates", type=click.IntRange(min=1), help="How many to score, instead of --effort.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that score; the result does not depend on it.")
@common.teacher_options
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same search.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), default=Path("search"), show_default=True,
    help="Folder for search.json and pareto.svg; an earlier search there is replaced.",
)  # fmt: skip
@click.option("--store", type=click.Path(path_type=Path), help="Folder of stage results, for resuming.")
@click.option("--top", type=click.IntRange(min=1), default=15, show_default=True, help="Lines of the table.")
@common.json_option
def command(
    teacher: Path,
    target: str,
    data: str | None,
    latency: str | None,
    size: str | None,
    effort: str,
    score: str,
    candidates: int | None,
    workers: int | None,
    factory: str | None,
    trust_pickle: bool,
    seed: int,
    output: Path,
    store: Path | None,
    top: int,
    as_json: bool,
) -> None:
    """Search students of TEACHER that keep to the limits; nothing is trained.

    Candidates are scored by what their untrained networks do with the data, and compared in latency, size and MACs.
    `build --search FOLDER` takes the best one that meets its own limits, for this target or another, without searching
    again. A search that was stopped goes on where it was when the same command runs again.
    """
    limits = common.budget(latency, size, None)
    from compactor.cli.progress import Display
    from compactor.pipeline.searching import search

    with nullcontext() if as_json else Display() as display:
        found = search(
            teacher, target=target, data=data, budget=limits, effort=effort, score=score, candidates=candidates,
            workers=workers, factory=factory, trust_pickle=trust_pickle, seed=seed, output=output, progress=display,
            store=store,
        )  # fmt: skip
    if as_json:
        common.emit({"search": str(output), **found})
    else:
        _show(common.stdout(), found, top)
        click.echo(f"search: {output}")


def _show(console: "Console", found: dict[str, Any], top: int) -> None:
    from rich.table import Table

    rows = found["archive"]
    console.print(
        f"{found['candidates']} candidates within {found['goal_ms']:.3f} ms on {found['target']}, scored by {found['score']}; "
        f"{len(rows)} that none beats in score, latency, size and MACs"
    )
    table = Table(title="best scores first; * is what a build would take", title_justify="left")
    for column in ("", "score", "latency ms", "precision", "MACs", "parameters", "bytes (float32)"):
        table.add_column(column, justify="left" if column in ("", "precision") else "right")
    for row in rows[:top]:
        table.add_row(
            "*" if row["chosen"] else "", f"{row['score']:.3f}", f"{row['latency_ms']:.3f}", row["precision"], f"{row['macs']:,}",
            f"{row['parameters']:,}", f"{row['bytes']:,}",
        )  # fmt: skip
    console.print(table)
    if len(rows) > top:
        console.print(f"{len(rows) - top} more in search.json")
