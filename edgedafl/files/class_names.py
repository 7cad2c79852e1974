"""A text file with the names of a classifier's classes."""

from __future__ import annotations

from pathlib import Path

from edgedafl.errors import UsageError, reason_of

__all__ = ["read_class_names"]


def read_class_names(path: Path, num_classes: int) -> tuple[str, ...]:
    """Names of the classes, in order.

    Args:
        path: One name per line, the first class first; empty lines do not count.
        num_classes: Of the classifier.

    Raises:
        UsageError: If the file cannot be read, or does not name every class once.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.txt"
        >>> _ = path.write_text("cat" + chr(10) + "dog")
        >>> read_class_names(path, 2)
        ('cat', 'dog')
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--classes-file {str(path)!r} cannot be read: {reason_of(error)}.", "Give a text file."
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != num_classes or len(set(names)) != len(names):
        raise UsageError(
            f"{str(path)!r} lists {len(names)} classes; the teacher has {num_classes}.",
            "Write every class once, one name per line, the first class first.",
        )
    return names
