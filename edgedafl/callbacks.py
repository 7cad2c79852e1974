"""What long work calls while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedafl.runs import Progress

__all__ = ["OnMessage", "OnProgress", "silent"]

OnMessage = Callable[[str], None]
"""Called with a sentence or the name of a stage."""

OnProgress = Callable[["Progress"], None]
"""Called about once per second while a student is trained."""


def silent(_: object) -> None:
    """Say nothing.

    Examples:
        >>> silent("a message that nobody reads")
    """
