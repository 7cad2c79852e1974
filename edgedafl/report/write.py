"""A run as one self-contained HTML page, as Markdown and as JSON."""

from __future__ import annotations

import base64
import json
import statistics
from pathlib import Path
from typing import Any

from edgedafl.errors import UsageError, reason_of
from edgedafl.report.plots import agreement_plot, bar_plot, ladder_plot, latency_plot
from edgedafl.report.summary import RunSummary, summarize_run
from edgedafl.rundir import RunDirectory, write_atomic

__all__ = ["FORMATS", "write_report"]

FORMATS = ("html", "md", "json")
_ROWS = (
    ("File size", "size"),
    ("Parameters", "parameters"),
    ("MACs per image", "macs"),
    ("Latency, median", "latency"),
    ("Synthetic agreement", "agreement"),
    ("Accuracy", "accuracy"),
)


def write_report(run: RunDirectory, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Write `report.html`, `report.md` and `report.json` into the run directory.

    Raises:
        UsageError: If the directory is no run.
    """
    summary = summarize_run(run)
    written = []
    for form in formats:
        path = run.path / f"report.{form}"
        write_atomic(path, _render(run, summary, form))
        written.append(path)
    return written


def _render(run: RunDirectory, summary: RunSummary, form: str) -> str:
    if form == "json":
        return json.dumps(summary.raw, indent=2, default=str) + "\n"
    values: dict[str, Any] = {
        "summary": summary,
        "rows": _ROWS,
        "has_accuracy": any(column.accuracy for column in summary.columns),
    }
    if form == "html":
        values |= {"plots": _plots(run, summary), "samples": _picture(run)}
    page: str = _environment(form).get_template(f"report.{form}").render(values)
    return page


def _environment(form: str) -> Any:
    import jinja2

    loader = jinja2.PackageLoader("edgedafl.report", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=form == "html", undefined=jinja2.StrictUndefined)
    environment.filters["md"] = _escape_markdown
    return environment


def _escape_markdown(text: str) -> str:
    for mark in "\\`*_<>|":
        text = text.replace(mark, f"\\{mark}")
    return text


def _picture(run: RunDirectory) -> str:
    path = run.path / "samples" / "classes.png"
    return base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""


def _samples(profile: Path) -> dict[str, list[int]]:
    """Nanoseconds by precision."""
    try:
        found = json.loads(profile.read_text("utf-8"))["samples_ns"]
        return {str(name): [int(value) for value in values] for name, values in found.items() if values}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{str(profile)!r} is damaged: {reason_of(error)}.", "Run `edgedafl profile` again."
        ) from error


def _plots(run: RunDirectory, summary: RunSummary) -> list[str]:
    stages = summary.raw.get("stages", {})
    known = summary.raw["teacher"]["size"]
    sizes = {"teacher": known / 1e3} if known else {}
    for precision, size in stages.get("export", {}).get("result", {}).get("sizes", {}).items():
        sizes[f"{'student' if precision == 'fp32' else 'artifact'} {precision}"] = size / 1e3
    metrics = run.read_metrics()
    ladder = summary.raw.get("ladder") or []
    plots = [ladder_plot(ladder, summary.raw["student"]["name"]), bar_plot("file size", "kB", sizes)]
    plots.append(agreement_plot(metrics))
    if summary.raw["teacher"]["access"] != "gradient":
        plots.append(agreement_plot(metrics, over="queries"))
    profile = run.path / "profile" / "local.json"
    if profile.is_file():
        samples = _samples(profile)
        medians = {
            f"{'student' if name == 'fp32' else 'artifact'} {name}": statistics.median(values) / 1e3
            for name, values in samples.items()
        }
        plots += [bar_plot("median latency on this host", "µs", medians), latency_plot(samples)]
    return [plot for plot in plots if plot]
