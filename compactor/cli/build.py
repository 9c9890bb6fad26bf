"""``compactor build``."""

from contextlib import nullcontext
from pathlib import Path

import click

from compactor.cli import common
from compactor.errors import ExitCode

EPILOG = """\b
Examples:
  compactor build teacher.pt2 --target host-cpu --data data/ --drop 1%
  compactor build teacher.pt2 --target jetson-orin --latency 5ms --size 1MB --data data/
  compactor build weights.pt --factory models:resnet20 --target raspberry-pi-5 --data d.npz
  compactor build bert/ --target host-cpu --data sst2/ --latency 25% --effort max
  compactor build teacher.pt2 --target jetson-orin --latency 5ms --search found/ --data data/
  compactor build teacher.pt2 --target raspberry-pi-5 --data d.npz --device ssh://pi@kitchen
"""


@click.command("build", epilog=EPILOG)
@click.argument("teacher", type=click.Path(path_type=Path))
@click.option("--target", required=True, metavar="NAME", help="Device profile: see `compactor targets list`.")
@click.option("--data", metavar="PATH|MODULE:CALLABLE", help="Data of the task; without it accuracy is unverified.")
@common.budget_options
@click.option(
    "--effort", type=click.Choice(["quick", "balanced", "max"]), default="balanced", show_default=True,
    help="How much work to put in.",
)  # fmt: skip
@click.option("--pipeline", metavar="TEXT", help="Passes instead of those of --effort: canonicalize,quantize.ptq")
@click.option(
    "--search", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Take the student from what `compactor search` wrote, instead of searching.",
)  # fmt: skip
@common.teacher_options
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same artifact.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), default=Path("artifact"), show_default=True,
    help="Folder of the artifact; an earlier artifact there is replaced when the new one is whole.",
)  # fmt: skip
@click.option("--store", type=click.Path(path_type=Path), help="Folder of stage results, for resuming.")
@click.option("--dumps", type=click.Path(path_type=Path), help="Write the IR before and after every pass here.")
@common.device_options
@common.json_option
def command(
    teacher: Path,
    target: str,
    data: str | None,
    latency: str | None,
    size: str | None,
    drop: str | None,
    effort: str,
    pipeline: str | None,
    search: Path | None,
    factory: str | None,
    trust_pickle: bool,
    seed: int,
    output: Path,
    store: Path | None,
    dumps: Path | None,
    device: str | None,
    device_minutes: float,
    as_json: bool,
) -> int:
    """Compress TEACHER for a device and write an artifact.

    TEACHER is a torch.export archive (.pt2), a Hugging Face folder, or a state dict with --factory. Limits are hard:
    when one is missed the artifact is still written, and the exit code is 1. A build that was stopped goes on where it
    was when the same command runs again.
    """
    limits = common.budget(latency, size, drop)
    from compactor.cli.progress import Display
    from compactor.pipeline.driver import build

    with nullcontext() if as_json else Display() as display:
        artifact = build(
            teacher, target=target, data=data, budget=limits, effort=effort, pipeline=pipeline, search=search,
            factory=factory, trust_pickle=trust_pickle, seed=seed, output=output, progress=display, store=store,
            dumps=dumps, device=device, minutes=device_minutes,
        )  # fmt: skip
    manifest = artifact.manifest
    if as_json:
        common.emit({"artifact": str(artifact.folder), "manifest": manifest.to_dict()})
    else:
        from compactor.report import summary

        summary.show(common.stdout(), manifest)
        click.echo(f"artifact: {artifact.folder}")
    return ExitCode.OK if manifest.gate.passed else ExitCode.GATE_FAILED
