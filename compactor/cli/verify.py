"""``compactor verify``."""

from pathlib import Path

import click

from compactor.cli import common
from compactor.errors import ExitCode

EPILOG = """\b
Examples:
  compactor verify artifact/
  compactor verify artifact/ --data data/ --json
"""


@click.command("verify", epilog=EPILOG)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", metavar="PATH|MODULE:CALLABLE", help="Compare on this data instead of random inputs.")
@common.json_option
def command(folder: Path, data: str | None, as_json: bool) -> int:
    """Check that the files of an artifact are whole and that its lowered model computes what student.pt2 does.

    Exit code 1 when files are damaged, 6 when the outputs differ, 5 when the runtime is not installed.
    """
    from compactor.pipeline.verification import verify
    from compactor.report.artifact import Artifact

    artifact = Artifact.open(folder)
    damage = artifact.damage()
    records = [] if damage else verify(artifact, data)
    passed = not damage and all(r.passed for r in records)
    if as_json:
        common.emit({"passed": passed, "damage": damage, "parity": [r.model_dump(exclude_none=True) for r in records]})
    else:
        for line in damage:
            click.echo(f"damaged: {line}")
        for record in records:
            click.echo(
                f"{record.backend}: relative error {record.error:.2e}, {'passed' if record.passed else 'FAILED'}"
            )
    if damage:
        return ExitCode.GATE_FAILED
    return ExitCode.OK if passed else ExitCode.PARITY
