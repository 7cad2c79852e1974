"""How this process handles memory that it has freed."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

__all__ = ["keep_freed_memory", "release_memory"]

# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_KEPT = 1_000_000_000


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next tensor; returns whether that was possible.

    By default it gives every large block back to the system, which clears it page by page when the next tensor
    asks for it again. At 224 pixels a side that is half of the time. Up to a gigabyte of free memory is kept.

    Examples:
        >>> keep_freed_memory() in (True, False)  # whether this system's C library can
        True
    """
    mallopt = _function("mallopt")
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))


def release_memory() -> None:
    """Give back what is kept free: the next stage asks for blocks of other sizes.

    Between the stages of a run at 224 pixels a side that is more than a gigabyte.

    Examples:
        >>> release_memory()
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any | None:
    """One of glibc's; None with another C library."""
    if sys.platform != "linux":
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
