"""Memory that a stage has freed, back to the system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["release_memory"]


def release_memory() -> None:
    """Let go of what the allocator keeps for later: gigabytes after a stage with large images.

    glibc keeps freed blocks in its heap; the next stage asks for blocks of other sizes. Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
