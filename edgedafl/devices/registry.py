"""Devices by the names users give them, in one TOML file of theirs; and by address."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from edgedafl.devices.adb import AdbDevice
from edgedafl.devices.base import Device
from edgedafl.devices.local import LocalDevice
from edgedafl.devices.ssh import SshDevice
from edgedafl.errors import UsageError, did_you_mean
from edgedafl.files import write_atomic
from edgedafl.files.toml import read_toml

__all__ = [
    "FOLDER_VARIABLE",
    "NamedDevice",
    "add_device",
    "devices_file",
    "file_stem",
    "find_device",
    "get_device_entry",
    "known_devices",
    "remove_device",
]

FOLDER_VARIABLE = "EDGEDAFL_HOME"
"""Environment variable that names the folder of the user's settings."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class NamedDevice:
    """What the user told about a device.

    Attributes:
        name: The user's name for it.
        address: `local`, `ssh://...` or `adb[:SERIAL]`.
        python: Command that starts Python there.
        emulated: Whether its times say nothing about a device.
        target: The target whose bundles it runs; empty where that was not said.
    """

    name: str
    address: str
    python: str = "python3"
    emulated: bool = False
    target: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON and TOML form."""
        return {key: value for key, value in vars(self).items() if key != "name"}


@dataclass(frozen=True)
class _Shelf:
    path: Path
    devices: dict[str, NamedDevice] = field(default_factory=dict)

    def save(self) -> None:
        content = {name: device.to_dict() for name, device in sorted(self.devices.items())}
        write_atomic(self.path, tomli_w.dumps({"device": content}))


def file_stem(device: str) -> str:
    """A device's name or address as the stem of a file's name.

    Examples:
        >>> file_stem("ssh://pi@10.0.0.7")
        'ssh-pi-10.0.0.7'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", device).strip("-")


def devices_file() -> Path:
    """Where the names are kept: below EDGEDAFL_HOME, else below the user's configuration folder.

    Examples:
        >>> devices_file().name
        'devices.toml'
    """
    own = os.environ.get(FOLDER_VARIABLE)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(own) / "devices.toml" if own else Path(base) / "edgedafl" / "devices.toml"


def known_devices() -> list[NamedDevice]:
    """All named devices.

    Raises:
        UsageError: If the file is damaged.

    Examples:
        >>> [device.name for device in known_devices()]  # doctest: +SKIP
        ['pi-in-the-lab']
    """
    return list(_read().devices.values())


def add_device(device: NamedDevice) -> NamedDevice:
    """Remember a device; an older one of that name is replaced.

    Raises:
        UsageError: If the name or the address is not valid.

    Examples:
        >>> add_device(NamedDevice("pi-in-the-lab", "ssh://pi@board.local"))  # doctest: +SKIP
    """
    if not _NAME.fullmatch(device.name) or device.name in ("local", "none", "adb"):
        raise UsageError(f"{device.name!r} cannot be a device's name.", "Use a letter, then letters, digits, . _ or -.")
    if not _is_address(device.address):
        raise UsageError(
            f"{device.address!r} is not an address of a device.", "Write local, ssh://user@host:22, adb or adb:SERIAL."
        )
    if device.address.startswith("ssh:"):
        SshDevice(device.address).close()  # refuses what is not an SSH address
    shelf = _read()
    shelf.devices[device.name] = device
    shelf.save()
    return device


def remove_device(name: str) -> None:
    """Forget a device.

    Raises:
        UsageError: If there is none of that name.

    Examples:
        >>> remove_device("pi-in-the-lab")  # doctest: +SKIP
    """
    shelf = _read()
    if name not in shelf.devices:
        raise _unknown(name, shelf)
    del shelf.devices[name]
    shelf.save()


def find_device(name: str) -> Device:
    """A device by name or address.

    Raises:
        UsageError: If there is none of that name.
        EnvironmentMissingError: If the program that reaches it is not installed.
        MeasurementError: If it is not attached.

    Examples:
        >>> find_device("local").name
        'local'
    """
    return _open(get_device_entry(name))


def get_device_entry(name: str) -> NamedDevice:
    """What is known of a device, by name or address.

    Raises:
        UsageError: If there is none of that name.

    Examples:
        >>> get_device_entry("ssh://pi@board.local").address
        'ssh://pi@board.local'
    """
    if _is_address(name):
        return NamedDevice(name, name)
    shelf = _read()
    if name not in shelf.devices:
        raise _unknown(name, shelf)
    return shelf.devices[name]


def _open(known: NamedDevice) -> Device:
    if known.address == "local":
        return LocalDevice()
    kind = SshDevice if known.address.startswith("ssh:") else AdbDevice
    return kind(known.address, python=known.python, emulated=known.emulated)


def _is_address(text: str) -> bool:
    return text in ("local", "adb") or text.startswith(("ssh://", "adb:"))


def _unknown(name: str, shelf: _Shelf) -> UsageError:
    known = ["local", "adb", *shelf.devices]
    nearest = did_you_mean(name, known, alike=0.5)
    return UsageError(
        f"There is no device {name!r}.",
        f"{nearest}Known: {', '.join(known)}; or write ssh://user@host, or run `edgedafl device add`.",
    )


def _read() -> _Shelf:
    path = devices_file()
    if not path.is_file():
        return _Shelf(path)
    try:
        data = read_toml(path)
        rows = data.get("device", {}).items()
        return _Shelf(path, {name: NamedDevice(name=name, **row) for name, row in rows})
    except (UsageError, OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as the list of devices: {error}.", "Correct it.") from error
