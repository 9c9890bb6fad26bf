"""``compactor``: the command group, and what every outcome turns into: a message and an exit code."""

import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from compactor.cli import bench, build, finish, gate, inspect, passes, profile, search, targets, verify
from compactor.errors import CompactorError, ExitCode, InternalError

EPILOG = """\b
Exit codes: 0 done; 1 a limit is missed or an artifact is damaged; 2 wrong request;
3 bad teacher or data; 4 unsupported model or target; 5 missing runtime;
6 parity failed; 7 a device failed; 70 internal error; 130 interrupted.
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="compactor")
def cli() -> None:
    """Compress a trained model for a device: teacher in, verified student out."""


for module in (build, search, inspect, profile, bench, gate, verify, finish, targets, passes):
    cli.add_command(module.command)


def entry() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command; no exception leaves it. ``--debug`` shows tracebacks, ``--json`` puts errors on stdout as JSON."""
    debug = "--debug" in arguments
    if not debug:
        warnings.simplefilter("ignore")
    try:
        outcome = cli.main(list(arguments), prog_name="compactor", standalone_mode=False)
        return outcome if isinstance(outcome, int) else ExitCode.OK
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        kind, message, remedy, code = _explain(error, arguments)
        _report(kind, message, remedy, code, "--json" in arguments)
        return code


def _explain(error: BaseException, arguments: Sequence[str]) -> tuple[str, str, str, ExitCode]:
    """Kind, message, remedy and exit code of what stopped a command."""
    from compactor.pipeline import disk

    kind = type(error).__name__
    match error:
        case OSError() | RuntimeError() | InternalError() if (full := disk.full(error)) is not None:
            return "UsageError", full, "free some space, or write (and point TMPDIR) to another disk", ExitCode.USAGE
        case CompactorError():
            return kind, error.message, error.remedy, error.exit_code
        case click.UsageError():
            path = error.ctx.command_path if error.ctx is not None else "compactor"
            return "UsageError", error.format_message(), f"see `{path} --help`", ExitCode.USAGE
        case click.Abort() | KeyboardInterrupt():
            again = shlex.join(["compactor", *arguments])
            return "Interrupted", "interrupted", f"run the same command to go on: {again}", ExitCode.INTERRUPTED
        case MemoryError():
            return kind, "out of memory", "close other programs, or use a machine with more memory", ExitCode.INTERNAL
    return (
        kind,
        f"internal error: {kind}: {error}",
        "run again with --debug and report the traceback",
        ExitCode.INTERNAL,
    )


def _report(kind: str, message: str, remedy: str, code: ExitCode, as_json: bool) -> None:
    if as_json:
        parts = {"kind": kind, "message": message, "remedy": remedy, "exit_code": int(code)}
        click.echo(json.dumps({"error": parts}, indent=2))
    click.echo(f"error: {message}" if code != ExitCode.INTERRUPTED else message, err=True)
    if remedy:
        click.echo(f"  -> {remedy}", err=True)
