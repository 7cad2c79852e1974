"""A history of gated runs as rows, and as a page with plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgedafl.report.pages import render_page
from edgedafl.report.plots import series_plot
from edgedafl.report.write import Plot
from edgedafl.runs.history import HistoryEntry
from edgedafl.units import format_bytes, format_duration

__all__ = ["HISTORY_COLUMNS", "history_page", "history_rows"]

HISTORY_COLUMNS = ("when", "commit", "subject", "gate", "size", "RAM", "fidelity", "accuracy", "latency")
_COMMIT = 9


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def history_rows(entries: Sequence[HistoryEntry]) -> list[list[str]]:
    """One row of formatted cells per entry, see `HISTORY_COLUMNS`; empty where something is not known.

    Examples:
        >>> entry = HistoryEntry("2026-01-01T00:00:00Z", "abc123", "runs/mine", True, (), size=900_000)
        >>> row = dict(zip(HISTORY_COLUMNS, history_rows([entry])[0], strict=True))
        >>> row["when"], row["size"], row["fidelity"]
        ('2026-01-01 00:00', '900 kB', '')
    """

    def shown(show: Callable[[float], str], value: float | None) -> str:
        return "" if value is None else show(value)

    return [
        [
            e.time[:16].replace("T", " "),
            e.commit[:_COMMIT],
            e.subject,
            "holds" if e.passed else f"fails: {', '.join(e.failed)}",
            shown(format_bytes, e.size),
            shown(format_bytes, e.ram),
            shown(_percent, e.fidelity),
            shown(_percent, e.accuracy),
            shown(format_duration, e.latency),
        ]
        for e in entries
    ]


def history_page(entries: Sequence[HistoryEntry], title: str) -> str:
    """The same as one self-contained HTML page with plots over the entries.

    Examples:
        >>> entry = HistoryEntry("2026-01-01T00:00:00Z", "abc123", "runs/<mine>", True, (), size=900_000)
        >>> "runs/&lt;mine&gt;" in history_page([entry, entry], "Sizes")
        True
    """
    kinds: tuple[tuple[str, str, Callable[[HistoryEntry], float | None]], ...] = (
        ("Size of the artifact", "kB", lambda e: None if e.size is None else e.size / 1e3),
        ("Weights", "thousands", lambda e: None if e.parameters is None else e.parameters / 1e3),
        ("Fidelity", "%", lambda e: None if e.fidelity is None else 100 * e.fidelity),
        ("Median latency", "ms", lambda e: None if e.latency is None else 1e3 * e.latency),
    )
    names = [e.commit[:_COMMIT] or e.time for e in entries]
    plots = [
        Plot(name, series_plot(names, [value(e) for e in entries], f"{name}, {unit}")) for name, unit, value in kinds
    ]
    return render_page(
        "history.html",
        title=title,
        columns=HISTORY_COLUMNS,
        rows=history_rows(entries),
        plots=[plot for plot in plots if plot.svg],
    )
