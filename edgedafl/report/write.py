"""A run as one self-contained HTML page, as Markdown and as JSON."""

from __future__ import annotations

import base64
import io
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedafl.errors import UsageError, reason_of
from edgedafl.files import write_atomic
from edgedafl.report.pages import render_page
from edgedafl.report.plots import agreement_plot, bar_plot, ladder_plot, latency_plot
from edgedafl.report.summary import RunSummary, summarize_record, title_of
from edgedafl.runs import RunDirectory, RunRecord
from edgedafl.units import format_bytes, format_duration

__all__ = ["FORMATS", "Plot", "write_report"]

FORMATS = ("html", "md", "json")
_SHEET_WIDTH = 1200


@dataclass(frozen=True)
class Plot:
    """A plot as inline SVG, and what it shows in words."""

    title: str
    svg: str


def write_report(run: RunDirectory, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Write `report.html`, `report.md` and `report.json` into the run directory.

    Raises:
        UsageError: If the directory is not a run.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> [path.name for path in write_report(RunDirectory("runs/teacher-rpi4"))]
        ['report.html', 'report.md', 'report.json']
    """
    record = run.record()
    summary = summarize_record(record, run)
    written = []
    for form in formats:
        path = run.path / f"report.{form}"
        write_atomic(path, _render(run, record, summary, form))
        written.append(path)
    return written


def _render(run: RunDirectory, record: RunRecord, summary: RunSummary, form: str) -> str:
    if form == "json":
        return json.dumps(run.manifest(), indent=2) + "\n"
    values: dict[str, Any] = {
        "summary": summary,
        "rows": _rows(summary),
        "has_accuracy": any(column.accuracy for column in summary.columns),
    }
    if form == "html":
        values |= {"plots": _plots(run, record), "samples": _picture(run)}
    return render_page(f"report.{form}", title=summary.title, **values)


def _rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Titles of the comparison's rows, and the column's field of each."""
    place = "" if not summary.device else " on this machine" if summary.device == "local" else f" on {summary.device}"
    return [
        ("File size", "size"),
        ("Parameters", "parameters"),
        ("MACs per image", "macs"),
        ("Working memory", "memory"),
        (f"Median latency{place}", "latency"),
        ("Synthetic agreement", "agreement"),
        ("Accuracy", "accuracy"),
    ]


def _picture(run: RunDirectory) -> str:
    """The sheet of generated images as a data address; of large images a smaller copy."""
    from PIL import Image

    path = run.samples
    if not path.is_file():
        return ""
    with Image.open(path) as sheet:
        if sheet.width <= _SHEET_WIDTH:
            return _address("png", path.read_bytes())
        buffer = io.BytesIO()
        small = sheet.convert("RGB").resize((_SHEET_WIDTH, round(sheet.height * _SHEET_WIDTH / sheet.width)))
        small.save(buffer, "jpeg", quality=85)
    return _address("jpeg", buffer.getvalue())


def _address(form: str, content: bytes) -> str:
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def _samples(profile: Path) -> dict[str, list[int]]:
    """Nanoseconds by precision."""
    try:
        found = json.loads(profile.read_text("utf-8"))["samples_ns"]
        return {str(name): [int(value) for value in values] for name, values in found.items() if values}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{str(profile)!r} is damaged: {reason_of(error)}.", "Run `edgedafl profile` again."
        ) from error


def _plots(run: RunDirectory, record: RunRecord) -> list[Plot]:
    metrics, whole = run.read_metrics(), record.teacher.size
    sizes = {"teacher": whole / 1e3} if whole else {}
    if record.exported:
        sizes |= {title_of(precision): size / 1e3 for precision, size in record.exported.sizes.items()}
    ladder = ladder_plot(record.ladder or (), record.student.name, record.weight_bits)
    plots = [
        Plot("Predicted fidelity of the candidates by size", ladder),
        Plot("File sizes", bar_plot("file size", "kB", sizes, lambda value: format_bytes(value * 1e3))),
        Plot("Synthetic agreement while training", agreement_plot(metrics)),
    ]
    if record.teacher.access != "gradient":
        plots.append(Plot("Synthetic agreement by queries", agreement_plot(metrics, over_queries=True)))
    return [plot for plot in [*plots, *_latency_plots(run)] if plot.svg]


def _latency_plots(run: RunDirectory) -> list[Plot]:
    profile = run.profile("local")
    if not profile.is_file():
        return []
    samples = _samples(profile)
    medians = {title_of(name): statistics.median(values) / 1e3 for name, values in samples.items()}
    return [
        Plot(
            "Median latency on this machine",
            bar_plot("median latency", "µs", medians, lambda value: format_duration(value / 1e6)),
        ),
        Plot("Latency of single calls on this machine", latency_plot(samples)),
    ]
