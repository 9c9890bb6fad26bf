"""The one error hierarchy: what happened, the offending value, what to do; and the exit code each ends in."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    UNSUPPORTED = 4
    MISSING_RUNTIME = 5
    PARITY = 6
    DEVICE = 7
    INTERNAL = 70
    INTERRUPTED = 130


class CompactorError(Exception):
    """Base of all errors shown to users.

    ``message`` says what happened and names the offending value; ``remedy`` says what to do about it.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message if not remedy else f"{message}\n  -> {remedy}")
        self.message = message
        self.remedy = remedy


class UsageError(CompactorError):
    """The request itself is wrong: an option, a pipeline text, an impossible budget."""

    exit_code = ExitCode.USAGE


class InputError(CompactorError):
    """The teacher or the data cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class UnsupportedError(CompactorError):
    """A model or a target asks for something that this version cannot do."""

    exit_code = ExitCode.UNSUPPORTED


class MissingRuntimeError(CompactorError):
    """A runtime or library that the request needs is not installed."""

    exit_code = ExitCode.MISSING_RUNTIME


class ParityError(CompactorError):
    """A lowered model does not compute what its Program computes."""

    exit_code = ExitCode.PARITY


class DeviceError(CompactorError):
    """A device that is elsewhere cannot be reached or trusted, or the connection or the device failed."""

    exit_code = ExitCode.DEVICE


class InternalError(CompactorError):
    """An invariant of the compiler itself is broken; always a bug."""

    exit_code = ExitCode.INTERNAL
