"""What gates found over time: one JSON line per gated run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgedafl.errors import EnvironmentMissingError, UsageError
from edgedafl.runs.json_form import read_result

__all__ = ["HistoryEntry", "append_entry", "read_history"]


@dataclass(frozen=True)
class HistoryEntry:
    """One gated run or model; None where something is not known.

    Attributes:
        time: When it was gated, ISO 8601 in UTC.
        commit: Of the repository it lies in; empty outside of one.
        subject: What was judged.
        passed: Whether every limit held.
        failed: Names of the limits that did not.
        size: Bytes of the artifact.
        parameters: Weights.
        macs: Multiply-accumulates per image.
        ram: Bytes of working memory.
        fidelity: In [0, 1].
        fidelity_kind: How that is known.
        accuracy: On labelled data, in [0, 1].
        latency: Median seconds, measured.
        latency_place: Device, processor and runtime that it was measured on.
    """

    time: str
    commit: str
    subject: str
    passed: bool
    failed: tuple[str, ...] = ()
    size: int | None = None
    parameters: int | None = None
    macs: int | None = None
    ram: int | None = None
    fidelity: float | None = None
    fidelity_kind: str = ""
    accuracy: float | None = None
    latency: float | None = None
    latency_place: str = ""


def append_entry(path: Path, entry: HistoryEntry) -> None:
    """Add a line to a history, which is made where there is none.

    Raises:
        EnvironmentMissingError: If it cannot be written.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "history.jsonl"
        >>> append_entry(path, HistoryEntry("2026-01-01T00:00:00Z", "abc123", "runs/mine", True, (), size=900_000))
        >>> [entry.size for entry in read_history(path)]
        [900000]
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(entry)) + "\n")
    except OSError as error:
        raise EnvironmentMissingError(
            f"The history {str(path)!r} cannot be written: {error.strerror or error}.", "Correct --history."
        ) from error


def read_history(path: Path) -> list[HistoryEntry]:
    """All lines, oldest first.

    Raises:
        UsageError: If there is no such file, or a line is not one of a history.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "history.jsonl"
        >>> for size in (900_000, 880_000):
        ...     append_entry(path, HistoryEntry("2026-01-01T00:00:00Z", "abc123", "runs/mine", True, (), size=size))
        >>> [entry.size for entry in read_history(path)]
        [900000, 880000]
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The history {str(path)!r} cannot be read.", "`edgedafl gate ... --history FILE` writes one."
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(read_result(json.loads(line), HistoryEntry))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path}:{number} is not a line of a history: {error}.", "Remove that line.") from error
    return found
