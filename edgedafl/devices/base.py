"""Where a bundle runs. A device carries files and runs commands; it knows no runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edgedafl.errors import UsageError

__all__ = ["Device", "find_device"]


class Device(Protocol):
    """A place to run a bundle's `bench`."""

    name: str

    def run_bundle(self, bundle: Path, arguments: list[str], result: Path, *, timeout: float) -> None:
        """Push the bundle, run `bench` with `arguments`, pull its latency.json to `result`.

        Raises:
            MeasurementError: If the device cannot be reached or `bench` fails.
        """


def find_device(name: str) -> Device:
    """A device by name.

    Raises:
        UsageError: If the name is not known.
    """
    from edgedafl.devices.local import LocalDevice

    if name == "local":
        return LocalDevice()
    raise UsageError(
        f"There is no device {name!r}.", "Known: local. Copy the bundle to another device and run ./bench there."
    )
