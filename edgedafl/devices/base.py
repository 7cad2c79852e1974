"""What a device is: a place that carries files and runs commands. It knows no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgedafl.errors import MeasurementError

__all__ = ["Device", "DeviceLostError", "Outcome"]


class DeviceLostError(MeasurementError):
    """The connection went away; what ran on the device may still be running."""


@dataclass(frozen=True)
class Outcome:
    """What a command answered.

    Attributes:
        code: Its exit status.
        output: Standard output.
        errors: Standard error.
    """

    code: int
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """The last line it said, for a message."""
        said = (self.errors.strip() or self.output.strip()).splitlines()
        return said[-1] if said else "no reason given"


class Device(Protocol):
    """A place to run a bundle's `bench`.

    Attributes:
        name: As the user calls it.
        python: Command that starts Python there.
        scratch: Folder for temporary files, in the words of its shell.
        emulated: Whether its times say nothing about a device.
    """

    name: str
    python: str
    scratch: str
    emulated: bool

    def run(self, script: str, *, timeout: float) -> Outcome:
        """Run a POSIX shell script there.

        Raises:
            DeviceLostError: If the connection went away.
            MeasurementError: If the device cannot be reached, refuses us, or takes longer than
                `timeout` seconds.
        """

    def push(self, files: Sequence[Path], folder: str) -> None:
        """Copy files into an existing folder; raises as `run` does."""

    def pull(self, file: str, destination: Path) -> None:
        """Copy one file back; raises as `run` does."""

    def close(self) -> None:
        """Let go of the connection."""
