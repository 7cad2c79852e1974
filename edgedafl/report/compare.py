"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgedafl.runs import RunDirectory
from edgedafl.units import format_bytes, format_count, format_duration

__all__ = ["Difference", "compare_runs"]


@dataclass(frozen=True)
class Difference:
    """One quantity of both runs, formatted; the change is relative, or in points for shares."""

    name: str
    before: str
    after: str
    change: str


def compare_runs(a: RunDirectory, b: RunDirectory) -> list[Difference]:
    """The quantities that both or one of two runs know.

    Raises:
        UsageError: If one of them is not a run.
    """
    before, after = (_values(run) for run in (a, b))
    rows = []
    for name, show, is_share in _SHOWN:
        x, y = before.get(name), after.get(name)
        if x is None and y is None:
            continue
        rows.append(Difference(name, _or_dash(show, x), _or_dash(show, y), _change(x, y, is_share)))
    return rows


_SHOWN: tuple[tuple[str, Callable[[float], str], bool], ...] = (
    ("file size", format_bytes, False),
    ("parameters", format_count, False),
    ("MACs", format_count, False),
    ("latency (median)", format_duration, False),
    ("synthetic agreement", lambda v: f"{100 * v:.2f} %", True),
    ("accuracy", lambda v: f"{100 * v:.2f} %", True),
)


def _or_dash(show: Callable[[float], str], value: float | None) -> str:
    return "-" if value is None else show(value)


def _change(x: float | None, y: float | None, is_share: bool) -> str:
    if x is None or y is None:
        return ""
    return f"{100 * (y - x):+.2f} points" if is_share else f"{100 * (y / x - 1):+.1f} %" if x else ""


def _values(run: RunDirectory) -> dict[str, float | None]:
    record = run.record()
    precision, verified = record.shipped, record.verified
    measured = record.profiled.timed(precision) if record.profiled else None
    return {
        "file size": record.exported.sizes.get(precision) if record.exported else None,
        "parameters": record.student.parameters,
        "MACs": record.student.macs,
        "latency (median)": measured.summaries[precision].median / 1e9 if measured else None,
        "synthetic agreement": verified.agreement.get(precision) if verified else None,
        "accuracy": verified.accuracy.get(precision) if verified else None,
    }
