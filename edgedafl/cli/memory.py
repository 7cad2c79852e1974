"""How this process handles memory that it has freed."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Names of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_KEPT = 1_000_000_000


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next tensor; returns whether that was possible.

    By default it gives every large block back to the system, which clears it page by page when the next tensor
    asks for it again. At 224 pixels a side that is half of the time. Up to a gigabyte of free memory is kept.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
