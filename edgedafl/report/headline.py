"""The three figures a reader looks for first: size, latency and fidelity, each with what it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from edgedafl.runs import FidelityVerdict, ProfileResult, RunRecord
from edgedafl.units import format_bytes, format_duration

__all__ = ["Figure", "headline"]


@dataclass(frozen=True)
class Figure:
    """One figure, formatted.

    Attributes:
        name: What it is of.
        value: The artifact's; empty where it is not known.
        change: Against the teacher or the float student; empty where nothing can be compared.
        basis: Whether it was measured, on what, or predicted and how surely.
    """

    name: str
    value: str
    change: str
    basis: str


def headline(record: RunRecord) -> tuple[Figure, ...]:
    """Size, latency and fidelity of a run's artifact.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> [figure.name for figure in headline(RunDirectory("runs/teacher-rpi4").record())]
        ['Size', 'Latency', 'Fidelity']
    """
    return _size(record), _latency(record), _fidelity(record.verdict)


def _size(record: RunRecord) -> Figure:
    precision, whole = record.shipped, record.teacher.size
    size = record.exported.sizes.get(precision) if record.exported else None
    if size is None:
        return Figure("Size", "", "", "nothing was exported")
    change = f"{whole / size:.1f} times smaller than the teacher's {format_bytes(whole)}" if whole else ""
    return Figure("Size", format_bytes(size), change, f"the {precision} file")


def _latency(record: RunRecord) -> Figure:
    """Of the target where it is known; what another machine takes is not the target's latency."""
    precision, found = record.shipped, record.profiled or ProfileResult()
    if found.estimate is not None and found.is_estimated(precision):
        known = found.estimate
        low, middle, high = (format_duration(ns / 1e9) for ns in (known.low, known.median, known.high))
        basis = f"estimated for {record.target.title}, not measured: {low} to {high}, tier {known.tier}"
        return Figure("Latency", middle, "", basis)
    measured = found.timed(precision)
    if measured is None:
        return Figure("Latency", "", "", found.failed or f"not measured on {record.target.title}")
    where, processor = "this machine" if found.here else measured.device, measured.environment.processor
    basis = f"measured on {where}{f' ({processor})' if processor else ''}, one call, median"
    median = format_duration(measured.summaries[precision].median / 1e9)
    return Figure("Latency", median, _gain(measured.speed_up.get(precision)), basis)


def _gain(gain: float | None) -> str:
    if gain is None:
        return ""
    if gain >= 1:
        return f"{gain:.2f} times as fast as the student in float32"
    return f"{1 / gain:.2f} times as slow as the student in float32"


def _fidelity(verdict: FidelityVerdict | None) -> Figure:
    if verdict is None or verdict.band is None:
        return Figure("Fidelity", "", "", "not known: give pictures (--images) or labelled images (--eval)")
    band = verdict.band
    answers = f", {band.images:,} images" if band.images else ""
    change = f"at least {100 * verdict.floor:.4g} % asked for" if verdict.floor else "no floor asked for"
    return Figure(
        "Fidelity",
        f"{100 * band.fidelity:.1f} %",
        change,
        f"{band.kind}{answers}: {100 * band.low:.1f} to {100 * band.high:.1f} % in 90 of 100 cases",
    )
