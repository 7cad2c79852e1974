"""An Android device, through the system's own `adb`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedafl.devices.base import DeviceLostError, Outcome
from edgedafl.devices.program import find_program, run_program
from edgedafl.errors import MeasurementError, UsageError

__all__ = ["AdbDevice", "AttachedPhone", "list_attached"]

_INSTALL = "Install Android's platform tools, e.g. apt-get install adb."
_QUERY_SECONDS = 20
_COPY_SECONDS = 600
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\[\]-]*")
_LOST = ("device offline", "no devices", "not found", "closed", "connect", "protocol fault")
_STATES = {
    "unauthorized": "Unlock it and allow debugging from this computer in the dialog it shows.",
    "offline": "Plug it in again, or run: adb reconnect offline.",
    "no permissions": "Install the udev rules for Android devices, then plug it in again.",
}


@dataclass(frozen=True)
class AttachedPhone:
    """One line of `adb devices -l`.

    Attributes:
        serial: By which adb knows it.
        state: `device` where it can be used.
        details: Product and model.
    """

    serial: str
    state: str
    details: str


def list_attached() -> list[AttachedPhone]:
    """Phones and boards that adb sees.

    Raises:
        EnvironmentMissingError: If adb is not installed.

    Examples:
        >>> [phone.serial for phone in list_attached()]  # doctest: +SKIP
        ['R58M12ABCDE']
    """
    adb = find_program("adb", _INSTALL)
    done = run_program([adb, "devices", "-l"], where="adb", timeout=_QUERY_SECONDS)
    found = []
    for line in done.output.splitlines():
        match = re.match(r"(\S+)\s+(no permissions|\S+)\s*(.*)", line)
        if match and not line.startswith(("List of", "*")):
            found.append(AttachedPhone(*match.groups()))
    return found


class AdbDevice:
    """One attached device.

    Args:
        address: `adb`, where one device is attached, or `adb:SERIAL`.
        python: Command that starts Python there.
        emulated: Whether its times say nothing about a device.

    Raises:
        UsageError: If the address is not of that form.
        EnvironmentMissingError: If adb is not installed.
        MeasurementError: If the device is not attached or not ready.
    """

    scratch = "/data/local/tmp"

    def __init__(self, address: str, *, python: str = "python3", emulated: bool = False) -> None:
        self.name, self.python, self.emulated = address, python, emulated
        scheme, _, serial = address.partition(":")
        if scheme != "adb" or (serial and not _SERIAL.fullmatch(serial)):
            raise UsageError(f"{address!r} is not an ADB address.", "Write adb or adb:SERIAL, see `adb devices`.")
        self._adb = find_program("adb", _INSTALL)
        self._serial = _choose(serial)

    def run(self, script: str, *, timeout: float) -> Outcome:
        """See `Device.run`."""
        return self._call("shell", "-T", script, timeout=timeout)

    def push(self, files: Sequence[Path], folder: str) -> None:
        """See `Device.push`."""
        done = self._call("push", *(str(file) for file in files), f"{folder}/", timeout=_COPY_SECONDS)
        if done.code:
            raise MeasurementError(f"Copying to {self.name} failed: {done.last_words}", "Look at its free space.")

    def pull(self, file: str, destination: Path) -> None:
        """See `Device.pull`."""
        done = self._call("pull", file, str(destination), timeout=_COPY_SECONDS)
        if done.code:
            raise MeasurementError(f"Copying from {self.name} failed: {done.last_words}")

    def close(self) -> None:
        """The adb server is the user's; it stays."""

    def _call(self, *arguments: str, timeout: float) -> Outcome:
        done = run_program([self._adb, "-s", self._serial, *arguments], where=self.name, timeout=timeout)
        said = done.errors.lower()
        if done.code and said.startswith(("error:", "adb: error:")) and any(sign in said for sign in _LOST):
            raise DeviceLostError(f"{self.name} went away: {done.last_words}", "Look at its cable or its network.")
        return done


def _choose(serial: str) -> str:
    attached = list_attached()
    if not serial and len(attached) > 1:
        names = ", ".join(f"adb:{phone.serial}" for phone in attached)
        raise UsageError(f"{len(attached)} devices are attached.", f"Name one: {names}.")
    for phone in attached:
        if serial in ("", phone.serial):
            if phone.state != "device":
                remedy = _STATES.get(phone.state, "Look at it.")
                raise MeasurementError(f"The device {phone.serial} is not ready: {phone.state}.", remedy)
            return phone.serial
    what = f"The device {serial!r} is not attached" if serial else "No device is attached"
    known = ", ".join(phone.serial for phone in attached) or "none"
    raise MeasurementError(f"{what}; attached: {known}.", "Plug it in, or: adb connect HOST:PORT.")
