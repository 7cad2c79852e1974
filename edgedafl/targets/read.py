"""A target from a TOML file, checked word by word."""

from __future__ import annotations

import difflib
import functools
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgedafl.errors import UsageError
from edgedafl.files.toml import read_toml
from edgedafl.targets.target import QuantizationScheme, Target

__all__ = ["read_target"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DEVICE = {"kind", "chip", "family", "lanes", "clock_ghz", "bandwidth_gb_s"}
_SPECIFIED = {"family", "lanes", "clock_ghz", "bandwidth_gb_s"}
_OPSETS = range(13, 26)


def read_target(path: Path) -> Target:
    """Read a target's file.

    Args:
        path: A TOML file with the keys of `Target`, and the tables `[scheme]` and `[device]`.

    Raises:
        UsageError: If it is missing, has an unknown or missing key, or a value that does not fit.

    Examples:
        >>> from edgedafl.targets import target_file
        >>> read_target(target_file("rpi4")).runtime
        'onnxruntime'
    """
    try:
        data = read_toml(path)
    except OSError as error:
        raise UsageError(
            f"The target file {str(path)!r} cannot be read: {error.strerror}.", "Correct --target."
        ) from error
    where = f"The target file {str(path)!r}"
    _refuse_unknown(data, {f.name for f in fields(Target)}, where, "")
    for table, known in (("scheme", {f.name for f in fields(QuantizationScheme)}), ("device", _DEVICE)):
        if isinstance(data.get(table), dict):
            _refuse_unknown(data[table], known, where, f"{table}.")
    try:
        target: Target = _adapter().validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise UsageError(f"{where} lacks {key!r}.", "`edgedafl targets rpi5 --toml` prints a whole one.") from error
        raise UsageError(f"{where}: {key} = {first['input']!r}: {first['msg']}.", "Correct the value.") from error
    _refuse_unfit(target, where)
    return target


def _refuse_unknown(data: dict[str, Any], known: set[str], where: str, table: str) -> None:
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), 1, 0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
            raise UsageError(f"{where} has the unknown key {table + key!r}.", hint)


def _refuse_unfit(target: Target, where: str) -> None:
    if not _NAME.fullmatch(target.name):
        raise UsageError(f"{where}: name = {target.name!r} is not a name.", "Use a-z, 0-9, dots and dashes.")
    if target.opset not in _OPSETS:
        raise UsageError(f"{where}: opset = {target.opset}; models can be written from 13 to 25.", "Correct the value.")
    if target.channel_multiple < 1 or target.ir_version < 1:
        raise UsageError(f"{where}: channel_multiple and ir_version are 1 or more.", "Correct the value.")
    if target.device and "chip" not in target.device and not target.device.keys() >= _SPECIFIED:
        raise UsageError(
            f"{where}: [device] says neither which chip it is nor what one can do.",
            f'Give chip = "...", or all of {", ".join(sorted(_SPECIFIED))}.',
        )


@functools.cache
def _adapter() -> TypeAdapter[Target]:
    return TypeAdapter(Target)
