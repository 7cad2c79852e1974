"""Latency models of devices that were calibrated, kept beside the list of devices."""

from __future__ import annotations

import json
from pathlib import Path

from edgedafl.devices import devices_file, file_stem
from edgedafl.errors import UsageError
from edgedafl.files import write_atomic
from edgedafl.latency import DeviceModel
from edgedafl.targets import Target, find_target

__all__ = ["calibration_of", "keep_calibration"]


def keep_calibration(model: DeviceModel) -> Path:
    """Remember a device's model beside the list of devices.

    Examples:
        >>> from edgedafl.stages.calibrate import calibrate_device
        >>> keep_calibration(calibrate_device("pi-in-the-lab"))  # doctest: +SKIP
    """
    path = _path(model.device)
    write_atomic(path, json.dumps(model.to_dict(), indent=1) + "\n")
    return path


def calibration_of(device: str, target: Target) -> DeviceModel | None:
    """The model kept for a device and a target's runtime, if there is one.

    Raises:
        UsageError: If its file is damaged.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> calibration_of("a-board-that-was-not-calibrated", find_target("rpi4"))
    """
    path = _path(device)
    if not path.is_file():
        return None
    try:
        model = DeviceModel.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{str(path)!r} is not a latency model: {error}.", f"Run `edgedafl device calibrate {device}` again."
        ) from error
    return model if find_target(model.target).runtime == target.runtime else None


def _path(device: str) -> Path:
    return devices_file().parent / "calibrations" / f"{file_stem(device)}.json"
