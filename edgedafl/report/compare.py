"""Runs side by side: what changed against the first of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgedafl.report.pages import render_page
from edgedafl.report.plots import trade_off_plot
from edgedafl.runs import RunDirectory, RunRecord
from edgedafl.units import format_bytes, format_count, format_duration

__all__ = ["Cell", "Comparison", "Difference", "compare_runs", "comparison_page", "differences"]


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


@dataclass(frozen=True)
class _Quantity:
    """How something is shown, and which direction is better."""

    name: str
    show: Callable[[float], str]
    is_share: bool
    more_is_better: bool


_QUANTITIES = (
    _Quantity("file size", format_bytes, is_share=False, more_is_better=False),
    _Quantity("parameters", format_count, is_share=False, more_is_better=False),
    _Quantity("MACs", format_count, is_share=False, more_is_better=False),
    _Quantity("working memory", format_bytes, is_share=False, more_is_better=False),
    _Quantity("latency (median)", format_duration, is_share=False, more_is_better=False),
    _Quantity("fidelity", _percent, is_share=True, more_is_better=True),
    _Quantity("synthetic agreement", _percent, is_share=True, more_is_better=True),
    _Quantity("accuracy", _percent, is_share=True, more_is_better=True),
)
_LATENCY = "latency (median)"


@dataclass(frozen=True)
class Cell:
    """One run's value.

    Attributes:
        value: Formatted; `-` where it is not known.
        change: Against the first run: relative, or in points for shares; empty where nothing can be compared.
        better: Whether it improved.
        worse: Whether it got worse.
    """

    value: str
    change: str = ""
    better: bool = False
    worse: bool = False


@dataclass(frozen=True)
class Difference:
    """One quantity of all runs; the first run's cell has no change."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: Their names.
        rows: One per quantity that one of them knows.
        points: Name, latency in seconds and fidelity in [0, 1] of those that know both.
    """

    runs: tuple[str, ...]
    rows: tuple[Difference, ...]
    points: tuple[tuple[str, float, float], ...]


def compare_runs(runs: Sequence[RunDirectory]) -> Comparison:
    """What runs know of their artifacts, against the first of them.

    Raises:
        UsageError: If one of them is not a run.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> run = RunDirectory("runs/teacher-rpi4")
        >>> len(compare_runs([run, run]).runs)
        2
    """
    names = _names(runs)
    records = [run.record() for run in runs]
    values = [_values(record) for record in records]
    places = [_place(record) for record in records]
    rows = []
    for quantity in _QUANTITIES:
        found = [value.get(quantity.name) for value in values]
        if all(value is None for value in found):
            continue
        same = [quantity.name != _LATENCY or place == places[0] for place in places]
        cells = [_cell(quantity, found[0], value, comparable) for value, comparable in zip(found, same, strict=True)]
        rows.append(Difference(quantity.name, (Cell(cells[0].value), *cells[1:])))
    points = [
        (name, latency, fidelity)
        for name, value in zip(names, values, strict=True)
        if (latency := value[_LATENCY]) is not None and (fidelity := value["fidelity"]) is not None
    ]
    return Comparison(tuple(names), tuple(rows), tuple(points))


def differences(before: RunDirectory, after: RunDirectory) -> tuple[Difference, ...]:
    """The rows of two runs.

    Raises:
        UsageError: If one of them is not a run.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> run = RunDirectory("runs/teacher-rpi4")
        >>> [row.name for row in differences(run, run)][:3]
        ['file size', 'parameters', 'MACs']
    """
    return compare_runs((before, after)).rows


def comparison_page(comparison: Comparison) -> str:
    """One self-contained HTML page.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> run = RunDirectory("runs/teacher-rpi4")
        >>> comparison_page(compare_runs([run, run])).startswith("<!doctype html>")
        True
    """
    title = f"{len(comparison.runs)} runs side by side"
    return render_page("comparison.html", title=title, comparison=comparison, plot=trade_off_plot(comparison.points))


def _names(runs: Sequence[RunDirectory]) -> list[str]:
    """The folders' names; whole paths where two are equal."""
    short = [run.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def _cell(quantity: _Quantity, first: float | None, value: float | None, comparable: bool) -> Cell:
    if value is None:
        return Cell("-")
    shown = quantity.show(value)
    if first is None or not comparable:
        return Cell(shown)
    step = value - first
    if not step:
        return Cell(shown, "same")
    change = (
        f"{100 * step:+.2f} points" if quantity.is_share else f"{100 * (value / first - 1):+.1f} %" if first else ""
    )
    gain = step if quantity.more_is_better else -step
    return Cell(shown, change, better=gain > 0, worse=gain < 0)


def _values(record: RunRecord) -> dict[str, float | None]:
    precision, verified, exported = record.shipped, record.verified, record.exported
    measured = record.profiled.timed(precision) if record.profiled else None
    band = record.verdict.band if record.verdict else None
    return {
        "file size": exported.sizes.get(precision) if exported else None,
        "parameters": record.student.parameters,
        "MACs": record.student.macs,
        "working memory": exported.memory.get(precision) if exported else None,
        _LATENCY: measured.summaries[precision].median / 1e9 if measured else None,
        "fidelity": band.fidelity if band else None,
        "synthetic agreement": verified.agreement.get(precision) if verified else None,
        "accuracy": verified.accuracy.get(precision) if verified else None,
    }


def _place(record: RunRecord) -> str:
    measured = record.profiled.timed(record.shipped) if record.profiled else None
    return measured.place if measured else ""
