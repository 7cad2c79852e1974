"""TOML files as people's editors write them."""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from edgedafl.errors import UsageError

__all__ = ["decoded", "read_toml"]

_SIXTEEN_BIT = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded(path: Path) -> str:
    """A settings file's text: UTF-8, with or without a byte order mark, lines ended in any way.

    Raises:
        UsageError: If it is in another encoding.
        OSError: If it cannot be read.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "edgedafl.toml"
        >>> _ = path.write_text("[gate]", encoding="utf-8-sig")
        >>> decoded(path)
        '[gate]'
    """
    blob = path.read_bytes()
    name = "UTF-16" if blob.startswith(_SIXTEEN_BIT) else "another encoding"
    try:
        return blob.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{str(path)!r} is in {name}; TOML is UTF-8.", "Save it as UTF-8.") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A settings file as a dictionary.

    Raises:
        UsageError: If it is in another encoding, or is not TOML.
        OSError: If it cannot be read.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "edgedafl.toml"
        >>> _ = path.write_text("gate.max_size = '1MB'")
        >>> read_toml(path)
        {'gate': {'max_size': '1MB'}}
    """
    try:
        return tomllib.loads(decoded(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{str(path)!r} is not valid TOML: {error}.", "Correct that line.") from error
