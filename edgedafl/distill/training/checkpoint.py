"""The state of a distillation on disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgedafl.distill.distributed import DistributedContext
from edgedafl.errors import EnvironmentMissingError, UsageError

__all__ = ["load_checkpoint", "merged_pools", "pool_part", "save_checkpoint"]

_log = logging.getLogger(__name__)

_SCHEMA = 2
_ROWS = ("pixels", "logits", "weights")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: temporary file, fsync, rename; the one before stays beside it.

    Raises:
        EnvironmentMissingError: If the disk is full or the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> save_checkpoint(path, {"steps": 100})
        >>> load_checkpoint(path)["steps"]
        100
    """
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            torch.save({"schema": _SCHEMA, **_compact(state)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            path.replace(_previous(path))
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise EnvironmentMissingError(
            f"The checkpoint {str(path)!r} cannot be written: {error}.",
            "Free space on that disk; the last complete checkpoint is still there.",
        ) from error


def _compact(value: Any) -> Any:
    """The same values without the parts of a storage that no tensor shows: a view is written whole."""
    if isinstance(value, Tensor):
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, dict):
        return {key: _compact(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_compact, value))
    return value


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or the one before where the newest is damaged or missing.

    Only tensors and plain values are accepted.

    Raises:
        UsageError: If there is none, none can be read, or it is of another version.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> save_checkpoint(path, {"steps": 100})
        >>> save_checkpoint(path, {"steps": 200})
        >>> _ = path.write_bytes(b"damaged")
        >>> load_checkpoint(path)["steps"]
        100
    """
    present = [p for p in (path, _previous(path)) if p.is_file()]
    if not present:
        raise UsageError(f"There is no checkpoint {str(path)!r} to resume from.", "Start without --resume.")
    state = next((found for found in map(_read, present) if found is not None), None)
    if state is None:
        raise UsageError(f"The checkpoint {str(path)!r} is damaged.", "Start again without --resume.")
    if state.get("schema") != _SCHEMA:
        raise UsageError(
            f"The checkpoint {str(path)!r} has schema {state.get('schema')}; this version reads {_SCHEMA}.",
            "Start again without --resume.",
        )
    return state


def _read(path: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling errors share no base class
        _log.warning("The checkpoint %s is damaged (%s).", path, type(error).__name__)
        return None
    return state


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.before{path.suffix}")


def merged_pools(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The pools of all processes as one.

    Examples:
        >>> part = {"pixels": torch.zeros(3, 1, 4, 4), "logits": torch.zeros(3, 10), "weights": torch.ones(3)}
        >>> merged_pools([part, part])["added"]
        6
    """
    if len(parts) <= 1:
        return parts[0] if parts else {}
    rows = {name: torch.cat([p[name].cpu() for p in parts]) for name in _ROWS if name in parts[0]}
    return {**parts[0], **rows, "added": len(rows["pixels"]), "weighed": 0}


def pool_part(state: dict[str, Any], world: DistributedContext) -> dict[str, Any]:
    """This process's share of a merged pool.

    Examples:
        >>> from edgedafl.distill.distributed import init_distributed
        >>> state = {"pixels": torch.zeros(3, 1, 4, 4)}
        >>> pool_part(state, init_distributed("cpu")) is state  # one process has all of it
        True
    """
    if world.size == 1:
        return state
    rows = {name: state[name][world.rank :: world.size] for name in _ROWS if name in state}
    return {**state, **rows, "added": len(rows["pixels"]), "weighed": 0}
