"""Devices: where bundles run."""

from edgedafl.devices.base import Device, find_device
from edgedafl.devices.local import LocalDevice

__all__ = ["Device", "LocalDevice", "find_device"]
