"""Devices: where bundles run."""

from edgedafl.devices.adb import AdbDevice, AttachedPhone, list_attached
from edgedafl.devices.base import Device, DeviceLostError, Outcome
from edgedafl.devices.carry import Carried, run_bundle
from edgedafl.devices.check import Finding, check_device
from edgedafl.devices.facts import DeviceFacts, facts_script, parse_facts, read_facts
from edgedafl.devices.local import LocalDevice
from edgedafl.devices.registry import (
    NamedDevice,
    add_device,
    devices_file,
    file_stem,
    find_device,
    known_devices,
    look_up,
    remove_device,
)
from edgedafl.devices.ssh import SshDevice

__all__ = [
    "AdbDevice",
    "AttachedPhone",
    "Carried",
    "Device",
    "DeviceFacts",
    "DeviceLostError",
    "Finding",
    "LocalDevice",
    "NamedDevice",
    "Outcome",
    "SshDevice",
    "add_device",
    "check_device",
    "devices_file",
    "facts_script",
    "file_stem",
    "find_device",
    "known_devices",
    "list_attached",
    "look_up",
    "parse_facts",
    "read_facts",
    "remove_device",
    "run_bundle",
]
