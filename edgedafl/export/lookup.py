"""Exporters are plug-ins, found through the entry-point group `edgedafl.exporters`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from edgedafl.errors import EnvironmentMissingError, UsageError, did_you_mean
from edgedafl.export.base import Exporter

__all__ = ["GROUP", "find_exporter", "list_exporters"]

GROUP = "edgedafl.exporters"


def list_exporters() -> list[str]:
    """Names of the installed exporters.

    Examples:
        >>> "onnx" in list_exporters()
        True
    """
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def find_exporter(name: str) -> Exporter:
    """Load an exporter by name.

    Raises:
        UsageError: If there is none of that name.
        EnvironmentMissingError: If it cannot be imported.

    Examples:
        >>> find_exporter("onnx").name
        'onnx'
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            try:
                return cast("Exporter", entry.load()())
            except ImportError as error:
                raise EnvironmentMissingError(f"The exporter {name!r} cannot be loaded: {error}.") from error
    known = list_exporters()
    if not known:
        raise EnvironmentMissingError(
            "No exporter is installed: the entry points of EdgeDAFL are missing.",
            "Install the project with `pip install .` rather than running it from its source folder.",
        )
    nearest = did_you_mean(name, known)
    raise UsageError(f"There is no exporter {name!r}.", f"{nearest}Installed: {', '.join(known)}.")
