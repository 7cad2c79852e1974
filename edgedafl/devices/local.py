"""This machine as a device."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from edgedafl.devices.base import Outcome
from edgedafl.devices.program import run_program
from edgedafl.errors import MeasurementError

__all__ = ["LocalDevice"]


class LocalDevice:
    """Runs a bundle in a temporary copy, in a process of its own.

    The same Python interpreter, so that the bundle finds the ONNX Runtime installed here.

    Examples:
        >>> LocalDevice().run("printf hello", timeout=10).output
        'hello'
    """

    name = "local"
    scratch = "${TMPDIR:-/tmp}"
    emulated = False

    def __init__(self) -> None:
        self.python = shlex.quote(sys.executable)

    def run(self, script: str, *, timeout: float) -> Outcome:
        """See `Device.run`."""
        return run_program(["sh", "-s"], where="This machine", timeout=timeout, given=script)

    def push(self, files: Sequence[Path], folder: str) -> None:
        """See `Device.push`."""
        for file in files:
            shutil.copy(file, folder)

    def pull(self, file: str, destination: Path) -> None:
        """See `Device.pull`."""
        try:
            shutil.copyfile(file, destination)
        except OSError as error:
            raise MeasurementError(f"{file!r} cannot be read: {error.strerror}.") from error

    def close(self) -> None:
        """Nothing to let go of."""
