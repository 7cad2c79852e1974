"""The state of a distillation on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from edgedafl.errors import EnvironmentMissingError, UsageError

__all__ = ["load_checkpoint", "save_checkpoint"]

_SCHEMA = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: temporary file, fsync, rename.

    Raises:
        EnvironmentMissingError: If the disk is full or the folder cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            torch.save({"schema": _SCHEMA, **state}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise EnvironmentMissingError(
            f"The checkpoint {str(path)!r} cannot be written: {error}.",
            "Free space on that disk; the last complete checkpoint is still there.",
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted.

    Raises:
        UsageError: If it is missing, damaged or of another version.
    """
    if not path.is_file():
        raise UsageError(f"There is no checkpoint {str(path)!r} to resume from.", "Start without --resume.")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling errors share no base class
        raise UsageError(
            f"The checkpoint {str(path)!r} is damaged.", "Delete it and start again without --resume."
        ) from error
    if state.get("schema") != _SCHEMA:
        raise UsageError(
            f"The checkpoint {str(path)!r} has schema {state.get('schema')}; this version reads {_SCHEMA}.",
            "Start again without --resume.",
        )
    return state
