"""``compactor bench``."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compactor.cli import common
from compactor.errors import ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from compactor.pipeline.sweep import Row

EPILOG = """\b
Examples:
  compactor bench artifact/ --targets jetson-orin,raspberry-pi-5,host-cpu
  compactor bench artifact/ --device ssh://pi@kitchen
  compactor bench artifact/ --device raspberry-pi-5=ssh://pi@kitchen --device raspberry-pi-4=ssh://pi@hall
"""


@click.command("bench", epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--targets", metavar="A,B,...", default="", help="Device profiles: see `compactor targets list`.")
@click.option(
    "--device", "devices", multiple=True, metavar="[TARGET=]URL",
    help="Measure on this device too, as TARGET (the artifact's own by default); may be repeated.",
)  # fmt: skip
@common.minutes_option
@common.json_option
def command(folder: Path, targets: str, devices: tuple[str, ...], device_minutes: float, as_json: bool) -> int:
    """Latency of an artifact on many targets and devices: predicted, and measured where the device is at hand.

    Devices are measured side by side, one measurement at a time on each. What fails on one of them is said in its row,
    and its exit code is that of the command.
    """
    from compactor.cli.progress import Display
    from compactor.pipeline.remote import open_device
    from compactor.pipeline.sweep import sweep
    from compactor.report.artifact import Artifact

    names = [name.strip() for name in targets.split(",") if name.strip()]
    places = []
    for text in devices:
        named = "=" in text.partition("://")[0]
        target, url = text.split("=", 1) if named else (None, text)
        places.append((target, open_device(url, device_minutes)))
    with nullcontext() if as_json else Display() as progress:
        rows = sweep(Artifact.open(folder), names, places, progress)
    if as_json:
        common.emit({"artifact": str(folder), "rows": [row.to_dict() for row in rows]})
    else:
        common.stdout().print(_table(rows))
        for row in rows:
            if row.failure is not None:
                click.echo(f"! {row.target}: {row.failure.message}\n  -> {row.failure.remedy}", err=True)
    return next((int(row.failure.exit_code) for row in rows if row.failure is not None), ExitCode.OK)


def _table(rows: "list[Row]") -> "Table":
    from rich.table import Table

    table = Table(title="latency, batch 1, ms", title_justify="left")
    for i, column in enumerate(("target", "device", "predicted", "90 % interval", "measured", "p90", "prediction is")):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(row.target, row.device or "", *_predicted(row), *_measured(row))
    return table


def _predicted(row: "Row") -> tuple[str, str]:
    found = row.predicted
    if found is None:
        return "-", ""
    return f"{found.p50:.3f}", f"{found.low:.3f} to {found.high:.3f}" if found.low and found.high else ""


def _measured(row: "Row") -> tuple[str, str, str]:
    found, error = row.measured, row.error
    if found is None:
        return ("failed" if row.device else ""), "", ""
    above = "" if error is None else f"{abs(error):.0%} {'above' if error >= 0 else 'below'}"
    return f"{found.p50:.3f}", "" if found.p90 is None else f"{found.p90:.3f}", above
