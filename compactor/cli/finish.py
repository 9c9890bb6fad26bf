"""``compactor finish``."""

from pathlib import Path

import click

from compactor.cli import common
from compactor.errors import ExitCode

EPILOG = """\b
Examples, on the device, after copying the artifact there; and from afar:
  compactor finish artifact/
  compactor finish artifact/ --device ssh://pi@kitchen
"""


@click.command("finish", epilog=EPILOG)
@click.argument("folder", type=click.Path(path_type=Path))
@common.device_options
@common.json_option
def command(folder: Path, device: str | None, device_minutes: float, as_json: bool) -> int:
    """On the device: load or build the engine, check parity, and put measured latency in place of predicted.

    With --device this happens there, over SSH: the device needs Python and the runtime, and keeps nothing.

    The gate is decided again with the measured figure: exit code 1 when a limit is missed. Where the teacher's latency
    is only predicted, ratios and limits relative to it stay with what was predicted of the student.
    """
    from compactor.pipeline.verification import finish
    from compactor.report import summary
    from compactor.report.artifact import Artifact

    manifest = finish(Artifact.open(folder), device, device_minutes).manifest
    if as_json:
        common.emit({"artifact": str(folder), "manifest": manifest.to_dict()})
    else:
        summary.show(common.stdout(), manifest)
    return ExitCode.OK if manifest.gate.passed else ExitCode.GATE_FAILED
