"""Devices by name and address; what is refused before anything is contacted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedafl.devices import (
    LocalDevice,
    NamedDevice,
    SshDevice,
    add_device,
    find_device,
    known_devices,
    registry,
    remove_device,
)
from edgedafl.errors import UsageError
from tests.conftest import edgedafl


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(registry.FOLDER_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_named_device_is_remembered_and_forgotten(home: Path) -> None:
    add_device(NamedDevice("orin", "ssh://nvidia@orin.lab:2222", "python3.10", False, "jetson-orin-nano"))
    assert [d.name for d in known_devices()] == ["orin"]
    device = find_device("orin")
    assert isinstance(device, SshDevice)
    assert (device.name, device.python) == ("ssh://nvidia@orin.lab:2222", "python3.10")
    device.close()
    remove_device("orin")
    assert known_devices() == []
    with pytest.raises(UsageError, match="no device 'orin'"):
        find_device("orin")


def test_this_machine_needs_no_name() -> None:
    assert isinstance(find_device("local"), LocalDevice)


@pytest.mark.parametrize(
    "address",
    [
        "ssh://", "ssh://-oProxyCommand=touch%20x/", "ssh://host/path", "ssh://user:secret@host", "ssh://host:port",
        "ssh://us er@host", "ssh://host?x=1", "ssh://$(reboot)", "ssh://-l@host",
    ],
)  # fmt: skip
def test_what_is_no_ssh_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="not an SSH address") as caught:
        SshDevice(address)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["", "local", "1st", "a b", "x" * 80, "../up"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a device's name"):
        add_device(NamedDevice(name, "ssh://host"))


@pytest.mark.parametrize("text", ["device = 3", "[device.x]\nwhat = 1", "not toml", "[device.x]\n"])
def test_a_damaged_list_is_named(home: Path, text: str) -> None:
    home.mkdir()
    (home / "devices.toml").write_text(text)
    with pytest.raises(UsageError, match="cannot be read as the list of devices"):
        known_devices()


def test_the_command_line_adds_lists_and_removes() -> None:
    assert edgedafl("device", "add", "pi", "ssh://pi@pi.local", "--target", "raspberry-pi").code == 0
    listed = edgedafl("device", "list", "--json")
    assert '"address": "ssh://pi@pi.local"' in listed.out
    assert '"target": "rpi5"' in listed.out
    wrong = edgedafl("device", "check", "pj")
    assert (wrong.code, "Did you mean pi" in wrong.err) == (2, True)
    assert edgedafl("device", "remove", "pi").code == 0
    assert edgedafl("device", "remove", "pi").code == 2
    assert edgedafl("device", "add", "x", "http://host").code == 2
    assert edgedafl("profile", "/nowhere", "--device", "pi").code == 2
