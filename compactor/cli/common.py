"""What commands share: options, output for people and for machines."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from compactor.budget import Budget

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])
PLAIN_WIDTH = 140


def json_option(function: F) -> F:
    """``--json`` and ``--debug``; the latter is read by `compactor.cli.main.run`."""
    function = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks and warnings.")(function)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, and nothing but errors else.")(
        function
    )


def budget_options(function: F) -> F:
    """``--latency``, ``--size`` and ``--drop``."""
    for name, form, text in reversed(
        (
            ("--latency", "TIME", "At most this at batch 1 (median): 5ms, 800us, or 25% of the teacher's."),
            ("--size", "SIZE", "At most this for the lowered model: 1MB, 512KiB."),
            ("--drop", "POINTS", "At most this far below the teacher's score: 1%, 0.5%."),
        )
    ):
        function = click.option(name, metavar=form, help=text)(function)
    return function


def teacher_options(function: F) -> F:
    """How to read teachers that are not whole models by themselves."""
    function = click.option(
        "--trust-pickle", is_flag=True, help="Unpickle the teacher. Runs code from the file: only for files you trust."
    )(function)
    return click.option(
        "--factory", metavar="MODULE:CALLABLE", help="Makes the model that a state dict belongs to: models:resnet20."
    )(function)


def minutes_option(function: F) -> F:
    """``--device-minutes``."""
    return click.option(
        "--device-minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
        help="Time that a device may take, copying included.",
    )(function)  # fmt: skip


def device_options(function: F) -> F:
    """``--device`` and ``--device-minutes``."""
    text = "Measure on this device: ssh://user@host[:port][/path/to/python]."
    return click.option("--device", metavar="URL", help=text)(minutes_option(function))


def budget(latency: str | None, size: str | None, drop: str | None) -> Budget:
    """The Budget of the options. Raises `UsageError`."""
    return Budget(latency=latency, size=size, drop=drop)


def stdout() -> "Console":
    """A console for results; wide where there is no terminal, so that tables are not cut."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False)


def emit(data: Any) -> None:
    """Print JSON."""
    click.echo(json.dumps(data, indent=2, sort_keys=True))
