"""Programs of this machine that talk to devices: ssh, sftp, adb."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from edgedafl.devices.base import Outcome
from edgedafl.errors import EnvironmentMissingError, MeasurementError

__all__ = ["find_program", "run_program"]


def find_program(name: str, remedy: str) -> str:
    """The path of a program.

    Raises:
        EnvironmentMissingError: If it is not installed.

    Examples:
        >>> find_program("sh", "Install a shell.").endswith("sh")
        True
    """
    path = shutil.which(name)
    if path is None:
        raise EnvironmentMissingError(f"The program {name!r} is not installed on this machine.", remedy)
    return path


def run_program(command: Sequence[str], *, where: str, timeout: float, given: str = "") -> Outcome:
    """Run a program to its end with `given` as its standard input.

    Args:
        command: The program and its arguments.
        where: The device, for the message.
        timeout: Seconds.
        given: What the program reads.

    Raises:
        MeasurementError: If it takes longer.

    Examples:
        >>> run_program(["cat"], where="This machine", timeout=10, given="hello").output
        'hello'
    """
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"{where} did not answer within {timeout:.0f} s.", "Look whether it is awake and not at its limits."
        ) from error
    return Outcome(done.returncode, done.stdout, done.stderr)
