"""Devices: where bundles run."""

from edgedafl.devices.adb import AdbDevice, AttachedPhone, list_attached
from edgedafl.devices.base import Device, DeviceLostError, Outcome
from edgedafl.devices.check import Finding, check_device
from edgedafl.devices.facts import DeviceFacts, facts_script, parse_facts, read_facts
from edgedafl.devices.local import LocalDevice
from edgedafl.devices.registry import (
    NamedDevice,
    add_device,
    devices_file,
    file_stem,
    find_device,
    get_device_entry,
    known_devices,
    remove_device,
)
from edgedafl.devices.remote_run import BenchRun, run_bundle
from edgedafl.devices.ssh import SshDevice

__all__ = [
    "AdbDevice",
    "AttachedPhone",
    "BenchRun",
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
    "get_device_entry",
    "known_devices",
    "list_attached",
    "parse_facts",
    "read_facts",
    "remove_device",
    "run_bundle",
]
