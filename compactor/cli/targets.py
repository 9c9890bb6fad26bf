"""``compactor targets``."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.cli import common

if TYPE_CHECKING:
    from compactor.target import Target

EPILOG = """\b
Examples:
  compactor targets list
  compactor targets show jetson-orin --json
  compactor targets fit host-cpu --minutes 10
  compactor targets fit jetson-orin --measured latencies.json
"""


@click.group("targets", epilog=EPILOG)
def command() -> None:
    """The devices that can be built for."""


@command.command("list")
@common.json_option
def list_targets(as_json: bool) -> None:
    """All device profiles. ``measured`` ones are present on this machine, the others are predicted."""
    from compactor import registry

    profiles = registry.load("compactor.targets", "profiles")
    facts = [_facts(profiles.resolve(name)) for name in profiles.names()]
    if as_json:
        common.emit(facts)
        return
    from rich.table import Table

    table = Table("target", "backend", "precisions", "latency")
    for fact in facts:
        table.add_row(fact["name"], fact["backend"], ", ".join(fact["precisions"]), fact["latency"])
    common.stdout().print(table)


@command.command("show")
@click.argument("name")
@common.json_option
def show(name: str, as_json: bool) -> None:
    """One device profile: NAME, an alias, or the path of a .toml profile."""
    from compactor import registry

    target = registry.load("compactor.targets", "profiles").resolve(name)
    profile = getattr(target, "profile", None)
    facts = {**_facts(target), **(profile.model_dump(mode="json", by_alias=True) if profile is not None else {})}
    _print(facts, as_json)


@command.command("fit")
@click.argument("name")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Time to measure for.")
@click.option("--networks", type=click.IntRange(min=1), help="At most this many networks.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the networks.")
@click.option(
    "--measured", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Latencies measured elsewhere: a JSON list of {"model": FILE, "precision": P, "ms": MS}.',
)  # fmt: skip
@common.json_option
def fit(name: str, minutes: float, networks: int | None, seed: int, measured: Path | None, as_json: bool) -> None:
    """Time random networks on this device, so that predictions for NAME fit it.

    Later predictions use what was measured, until the machine or its runtime changes. Leave the machine alone
    meanwhile. For a device that is not here, give latencies that were measured on it: ten already help.
    """
    from compactor.cli.progress import Display
    from compactor.pipeline import fitting
    from compactor.pipeline import measured as elsewhere
    from compactor.pipeline.request import resolve_target

    if measured is not None:
        _print(elsewhere.fit(resolve_target(name), measured), as_json)
        return

    with nullcontext() if as_json else Display() as progress:
        facts = fitting.fit(resolve_target(name), seconds=60 * minutes, seed=seed, samples=networks, progress=progress)
    _print(facts, as_json)


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        common.emit(facts)
        return
    for key, value in _flat(facts):
        click.echo(f"{key:32s} {value}")


def _facts(target: "Target") -> dict[str, Any]:
    return {
        "name": target.name,
        "backend": target.backend,
        "precisions": list(target.precisions),
        "latency": "measured" if target.present else "predicted",
        "fingerprint": target.fingerprint,
    }


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list) and any(isinstance(i, dict) for i in item):
            lines += [pair for n, i in enumerate(item) for pair in _flat(i, f"{prefix}{key}[{n}].")]
        elif item is not None:
            lines.append((prefix + key, ", ".join(map(str, item)) if isinstance(item, list) else str(item)))
    return lines
