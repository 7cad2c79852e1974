"""Targets by name: files of this package, of other packages, and of the user."""

from __future__ import annotations

import functools
from importlib import metadata, resources
from pathlib import Path

from edgedafl.errors import EnvironmentMissingError, UsageError, did_you_mean, reason_of
from edgedafl.targets.read import read_target
from edgedafl.targets.target import Target

__all__ = ["ALIASES", "GROUP", "find_target", "list_targets", "target_file"]

ALIASES = {
    "jetson": "jetson-orin-nano",
    "phone": "android-arm64",
    "raspberry-pi": "rpi5",
    "x86": "x86-64-vnni",
}

GROUP = "edgedafl.targets"
"""Entry points of packages that bring targets: each one is the path of a TOML file, as text or `Path`."""


@functools.cache
def _files() -> dict[str, Path]:
    """The TOML file of every target by name; the package's own names cannot be taken by others."""
    own = Path(str(resources.files("edgedafl.targets").joinpath("data")))
    files = {file.stem: file for file in sorted(own.glob("*.toml"))}
    for point in metadata.entry_points(group=GROUP):
        try:
            files.setdefault(point.name, Path(point.load()))
        except Exception as error:  # a plug-in may raise anything
            raise EnvironmentMissingError(
                f"The target {point.name!r} of {point.value!r} cannot be loaded: {reason_of(error)}.",
                "Reinstall or remove that package.",
            ) from error
    return files


@functools.cache
def _read(path: Path) -> Target:
    return read_target(path)


def list_targets() -> list[Target]:
    """All installed targets, by name.

    Returns:
        Those of this package and of others that bring some.

    Examples:
        >>> "rpi5" in {target.name for target in list_targets()}
        True
    """
    return [_read(path) for _, path in sorted(_files().items())]


def target_file(name: str) -> Path:
    """The TOML file of a target: the user's own (`boards/mine.toml`), or an installed one by name or alias.

    Raises:
        UsageError: If there is none; near names are listed.

    Examples:
        >>> target_file("jetson").name
        'jetson-orin-nano.toml'
    """
    if name.endswith(".toml"):
        return Path(name)
    files = _files()
    full = ALIASES.get(name, name)
    if full in files:
        return files[full]
    known = [*ALIASES, *files]
    nearest = did_you_mean(name, known, most=3)
    raise UsageError(
        f"There is no target {name!r}.", f"{nearest}Known: {', '.join(known)}; or the path of a .toml file."
    )


def find_target(name: str) -> Target:
    """A target by name, by alias, or from a TOML file of the user's.

    Args:
        name: As `--target` takes it: `jetson`, `rpi5`, `boards/mine.toml`.

    Returns:
        The target.

    Raises:
        UsageError: If there is none, or its file is wrong.

    Examples:
        >>> find_target("raspberry-pi").runtime
        'onnxruntime'
    """
    path = target_file(name)
    return read_target(path) if name.endswith(".toml") else _read(path)
