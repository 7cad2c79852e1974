"""What a device is and in what state: read by a shell script that changes nothing there."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib import resources

from edgedafl.devices.base import Device
from edgedafl.errors import MeasurementError

__all__ = ["DeviceFacts", "facts_script", "parse_facts", "read_facts"]

_SECONDS = 120.0


@dataclass(frozen=True)
class DeviceFacts:
    """Findings by name, as the script says them; what a device does not have is absent.

    Attributes:
        values: One line of text per name.
    """

    values: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    def group(self, name: str) -> dict[str, str]:
        """Values of `name.*`, e.g. all temperatures."""
        start = f"{name}."
        return {key[len(start) :]: value for key, value in self.values.items() if key.startswith(start)}

    @property
    def temperatures(self) -> dict[str, float]:
        """Degrees Celsius by zone; the kernel gives thousandths, some zones whole degrees."""
        found = {}
        for zone, text in self.group("temperature").items():
            if text.lstrip("-").isdigit():
                degrees = int(text)
                found[zone] = degrees / 1000 if abs(degrees) >= 1000 else float(degrees)
        return found

    @property
    def features(self) -> frozenset[str]:
        """Instruction set extensions."""
        return frozenset(self["cpu_features"].split())

    @property
    def emulated(self) -> bool:
        """Whether an emulator was recognised."""
        return bool(self["emulated"])


def facts_script() -> str:
    """The script itself; bundles carry it too.

    Examples:
        >>> facts_script().splitlines()[0]
        '#!/bin/sh'
    """
    return resources.files("edgedafl.devices.data").joinpath("facts.sh").read_text("utf-8")


def parse_facts(text: str) -> DeviceFacts:
    """Lines of `name<TAB>value`; others are skipped.

    Examples:
        >>> parse_facts("machine" + chr(9) + "aarch64")["machine"]
        'aarch64'
    """
    pairs = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return DeviceFacts({name: value.strip() for name, value in pairs if value.strip()})


def read_facts(device: Device) -> DeviceFacts:
    """Ask a device.

    Raises:
        MeasurementError: If it cannot be reached or has no POSIX shell.

    Examples:
        >>> import platform
        >>> from edgedafl.devices.local import LocalDevice
        >>> read_facts(LocalDevice())["machine"] == platform.machine()
        True
    """
    given = f'set -- {shlex.quote(device.python)}\nSCRATCH="{device.scratch}"\n'
    done = device.run(given + facts_script(), timeout=_SECONDS)
    facts = parse_facts(done.output)
    if not facts["machine"]:
        raise MeasurementError(
            f"{device.name} does not answer as a device with a POSIX shell: {done.last_words}",
            "Look what `sh` and `uname -m` say there.",
        )
    return facts
