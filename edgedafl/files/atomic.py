"""Files that are whole or absent, and digests."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from edgedafl.errors import EnvironmentMissingError

__all__ = ["digest_of", "write_atomic"]


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write by temporary file, fsync and rename: readers see the old file or the new one.

    Raises:
        EnvironmentMissingError: If the disk is full or the folder is not writable.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> write_atomic(path, "done")
        >>> path.read_text()
        'done'
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise EnvironmentMissingError(
            f"{str(path)!r} cannot be written: {error.strerror or error}.",
            "Free space or choose another folder with --output; nothing half-written was left.",
        ) from error


def digest_of(value: Any) -> str:
    """sha256 of a JSON-able value, keys sorted.

    Examples:
        >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
