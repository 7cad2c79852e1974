"""How limits fared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["GateReport", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """One limit and how it fared.

    Attributes:
        name: Key of the limit, e.g. `max_size`.
        title: For people.
        passed: Whether the limit holds.
        value: Measured value, formatted.
        limit: The limit, formatted.
        excess: By how much it is exceeded, formatted; empty when passed.
        edit: File and line to change the limit, or the flag.
    """

    name: str
    title: str
    passed: bool
    value: str
    limit: str
    excess: str
    edit: str


@dataclass(frozen=True)
class GateReport:
    """All verdicts of one gate.

    Attributes:
        subject: What was judged.
        verdicts: One per limit.
        notes: What could not be compared because there is nothing yet.
    """

    subject: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return all(v.passed for v in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return {
            "subject": self.subject,
            "passed": self.passed,
            "verdicts": [dict(vars(v)) for v in self.verdicts],
            "notes": list(self.notes),
        }
