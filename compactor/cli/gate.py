"""``compactor gate``."""

from pathlib import Path

import click

from compactor.cli import common
from compactor.errors import ExitCode

EPILOG = """\b
Examples:
  compactor gate artifact/
  compactor gate artifact/ --latency 4ms --drop 0.5% --json
"""


@click.command("gate", epilog=EPILOG)
@click.argument("folder", type=click.Path(path_type=Path))
@common.budget_options
@common.json_option
def command(folder: Path, latency: str | None, size: str | None, drop: str | None, as_json: bool) -> int:
    """Check an artifact again: file hashes and limits. Exit code 1 when one is missed.

    The limits are those of the build; options replace them. The figures are those of the manifest: nothing is run.
    """
    override = common.budget(latency, size, drop)
    from compactor.report import gate, summary
    from compactor.report.artifact import Artifact

    artifact = Artifact.open(folder)
    damage = artifact.damage()
    result = gate.evaluate(artifact.manifest.metrics, gate.merge(artifact.manifest.budget, override))
    if as_json:
        common.emit({"passed": result.passed and not damage, "damage": damage, **result.model_dump(include={"checks"})})
    else:
        for line in damage:
            click.echo(f"damaged: {line}")
        common.stdout().print(summary.gate_table(result))
    return ExitCode.OK if result.passed and not damage else ExitCode.GATE_FAILED
