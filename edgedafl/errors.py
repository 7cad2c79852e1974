"""Every error EdgeDAFL raises on purpose, and the one place that maps errors to exit codes."""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = [
    "CheckFailedError",
    "DistillationError",
    "EdgeDaflError",
    "EnvironmentMissingError",
    "ExitCode",
    "InterruptedRunError",
    "MeasurementError",
    "UnsupportedModelError",
    "UsageError",
    "did_you_mean",
    "exit_code_for",
    "reason_of",
]


class ExitCode(enum.IntEnum):
    """Exit codes of the command line; documented in `edgedafl --help` and docs/reference/files.md.

    Examples:
        >>> ExitCode.USAGE == 2
        True
    """

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    ENVIRONMENT = 3
    MEASUREMENT = 4
    UNSUPPORTED_MODEL = 5
    INTERNAL = 70
    INTERRUPTED = 130


class EdgeDaflError(Exception):
    """Base of all expected errors.

    Args:
        message: One sentence: what was found and what was expected.
        hint: What the user can do about it; may be empty.

    Attributes:
        exit_code: Of the process, where the error ends it.

    Examples:
        >>> from edgedafl import EdgeDaflError, find_target
        >>> try:
        ...     find_target("jetsn")
        ... except EdgeDaflError as error:
        ...     print(error.message, int(error.exit_code))
        There is no target 'jetsn'. 2
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailedError(EdgeDaflError):
    """A gate limit or a numeric parity check does not hold: look at the numbers it names."""

    exit_code = ExitCode.CHECK_FAILED


class UsageError(EdgeDaflError):
    """A flag, a path or a configuration value is wrong: correct the call.

    Examples:
        >>> error = UsageError("--student kept:2 is not a share.", "Write it like kept:0.5.")
        >>> error.message, error.hint
        ('--student kept:2 is not a share.', 'Write it like kept:0.5.')
    """

    exit_code = ExitCode.USAGE


class EnvironmentMissingError(EdgeDaflError):
    """A package, runtime or resource of this machine is missing: install or free it."""

    exit_code = ExitCode.ENVIRONMENT


class MeasurementError(EdgeDaflError):
    """A device cannot be reached or a measurement is not valid: repair the set-up, run again."""

    exit_code = ExitCode.MEASUREMENT


class UnsupportedModelError(EdgeDaflError):
    """A model is damaged or of a kind that cannot be used: export it differently."""

    exit_code = ExitCode.UNSUPPORTED_MODEL


class DistillationError(EdgeDaflError):
    """Distillation collapsed beyond recovery: follow the advice, most often the preprocessing."""

    exit_code = ExitCode.CHECK_FAILED


class InterruptedRunError(EdgeDaflError):
    """The user stopped the run; its state is saved and `--resume` goes on from it."""

    exit_code = ExitCode.INTERRUPTED


def did_you_mean(name: str, known: Iterable[str], *, most: int = 2, alike: float = 0.4) -> str:
    """`Did you mean a or b? ` for a name that is near known ones; empty where none is.

    Args:
        name: As the user wrote it.
        known: The names that there are.
        most: How many are named.
        alike: How near they must be, in [0, 1].

    Examples:
        >>> did_you_mean("raspbery-pi", ["jetson", "raspberry-pi", "phone"])
        'Did you mean raspberry-pi? '
    """
    import difflib  # not for every `--help`

    near = difflib.get_close_matches(name, list(known), most, alike)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def reason_of(error: BaseException, longest: int = 160) -> str:
    """The first line of another library's error, to stand in a sentence of ours.

    Examples:
        >>> reason_of(FileNotFoundError(2, "No such file or directory"))
        '[Errno 2] No such file or directory'
    """
    lines = str(error).strip().splitlines()
    return lines[0][:longest] if lines else type(error).__name__


def exit_code_for(error: BaseException) -> ExitCode:
    """Map any exception to the exit code of the process.

    Examples:
        >>> exit_code_for(UsageError("A flag is wrong.", "Correct it."))
        <ExitCode.USAGE: 2>
    """
    if isinstance(error, EdgeDaflError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode.INTERNAL
