"""Terminal output: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from edgedafl.errors import ExitCode, MeasurementError

if TYPE_CHECKING:
    from edgedafl.devices import Finding
    from edgedafl.report import RunSummary
    from edgedafl.runs import MeasuredLatency, ProfileResult, Progress

__all__ = [
    "RunDisplay",
    "exit_code_of",
    "message_printer",
    "print_findings",
    "print_json",
    "print_measurement",
    "print_summary",
    "print_table",
    "refuse_invalid",
    "run_display",
]

_LAYERS_SHOWN = 12
_MARKS = {True: "ok", False: "MISSING", None: "-"}


def print_json(value: Any) -> None:
    """One JSON document on stdout.

    Examples:
        >>> print_json({"size": 900_000})
        {
          "size": 900000
        }
    """
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(columns: list[str], rows: list[list[str]], title: str = "") -> None:
    """A plain table on stdout; colours only on a terminal.

    Examples:
        >>> print_table(["model", "size"], [["int8", "1 MB"], ["fp32", "4 MB"]])
        model  size
        int8   1 MB
        fp32   4 MB
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140).print(table, markup=False)


def print_summary(summary: RunSummary, directory: str, *, detail: bool) -> None:
    """The verdict, then size, latency, fidelity and accuracy of the artifact, each on a line.

    Args:
        summary: Of the run.
        directory: Of the run.
        detail: Whether the tables of candidates and models are printed as well.

    Examples:
        >>> from edgedafl.report import summarize_run
        >>> from edgedafl.runs import RunDirectory
        >>> print_summary(summarize_run(RunDirectory("runs/teacher-rpi4")), "runs/teacher-rpi4", detail=False)
        Faithful: ...
    """
    if summary.verdict:
        click.echo(summary.verdict)
    for figure in summary.headline:
        text = "; ".join(part for part in (figure.change, figure.basis) if part)
        click.echo(f"  {figure.name.lower():<9} {figure.value or 'unknown'} ({text})")
    accuracies = [(column.title, column.accuracy) for column in summary.columns if column.accuracy]
    if accuracies:
        click.echo(f"  {'accuracy':<9} {', '.join(f'{title} {value}' for title, value in accuracies)}")
    click.echo(f"  {'student':<9} {summary.student}")
    if detail:
        _print_tables(summary)
    for text in summary.advice:
        click.echo(f"Note: {text}")
    click.echo(f"Report: {directory}/report.html")


def _print_tables(summary: RunSummary) -> None:
    if summary.ladder:
        rows = [
            [
                "taken" if r.taken else "",
                r.name,
                r.size,
                r.macs,
                r.latency or "-",
                r.untrained or "-",
                r.expected or "-",
            ]
            for r in summary.ladder
        ]
        print_table(["", "candidate", "size", "MACs", "latency", "fidelity untrained", "after training"], rows)
    rows = [
        [name, *(getattr(column, key) or "-" for column in summary.columns)]
        for name, key in (
            ("file size", "size"),
            ("parameters", "parameters"),
            ("MACs per image", "macs"),
            ("working memory", "memory"),
            ("latency here", "latency"),
            ("synthetic agreement", "agreement"),
            ("accuracy", "accuracy"),
        )
    ]
    print_table(["", *(column.title for column in summary.columns)], rows)


def print_findings(findings: Sequence[Finding]) -> None:
    """What was looked at, and what mends it.

    Examples:
        >>> from edgedafl.devices import Finding
        >>> print_findings([Finding("git", False, "missing", "apt install git")])  # doctest: +NORMALIZE_WHITESPACE
                 what found   what to do
        MISSING  git  missing apt install git
    """
    rows = [[_MARKS[f.ok], f.name, f.detail, f.remedy] for f in findings]
    print_table(["", "what", "found", "what to do"], rows)


def exit_code_of(findings: Sequence[Finding]) -> int:
    """Whether something needed is missing.

    Examples:
        >>> from edgedafl.devices import Finding
        >>> int(exit_code_of([Finding("git", False, "missing")]))
        3
    """
    return int(ExitCode.ENVIRONMENT) if any(f.ok is False for f in findings) else 0


def message_printer(quiet: bool) -> Callable[[str], None]:
    """Prints messages to stderr, or swallows them with `-q`.

    Examples:
        >>> message_printer(quiet=True)("a message that nobody reads")
    """
    return lambda text: None if quiet else click.echo(text, err=True)


def refuse_invalid(reasons: Sequence[str], allowed: bool) -> None:
    """Stop at a measurement that was disturbed.

    Raises:
        MeasurementError: If there are reasons and the user did not allow them.

    Examples:
        >>> refuse_invalid(["contended: other work took 40 % of the core"], allowed=True)
    """
    if reasons and not allowed:
        raise MeasurementError(
            f"The measurement is not valid: {'; '.join(reasons)}.",
            "Stop other work, let the device cool and run again, or accept it with --allow-contended.",
        )


def print_measurement(result: ProfileResult) -> None:
    """What a profile found: measured, estimated, doubts.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> from edgedafl.targets import find_target
        >>> from edgedafl.stages import profile_stage
        >>> result = profile_stage(RunDirectory("runs/teacher-rpi4"), find_target("rpi4"), "int8", device="none")
        >>> print_measurement(result)
        rpi4: estimate, not measured: ...
    """
    from edgedafl.units import format_duration

    if result.measured is not None:
        _print_measured(result.measured)
    if result.recommendation is not None:
        click.echo(result.recommendation.text)
    for warning in result.measured.warnings if result.measured else ():
        click.echo(f"Warning: {warning}", err=True)
    if result.estimate is not None:
        e = result.estimate
        low, mid, high = (format_duration(ns / 1e9) for ns in (e.low, e.median, e.high))
        click.echo(f"{e.device}: estimate, not measured: {mid} ({low} to {high}, tier {e.tier})")


def _print_measured(measured: MeasuredLatency) -> None:
    from edgedafl.units import format_duration

    def time(value: float | None, count: int) -> str:
        return format_duration(value / 1e9) if value is not None else f"n/a (n={count})"

    rows = [
        [name, *(time(ns, s.count) for ns in (s.minimum, s.median, s.p90, s.p99)), str(s.count)]
        for name, s in measured.summaries.items()
    ]
    print_table([measured.kind, "min", "median", "p90", "p99", "samples"], rows)
    for precision, gain in measured.speed_up.items():
        if gain is not None:
            click.echo(f"{precision} is {gain:.2f} times as fast as fp32 (medians, measured in turn)")
    for precision, bound in measured.mlperf_p90.items():
        click.echo(f"MLPerf single-stream, {precision}: 90th percentile {format_duration(bound / 1e9)}")
    for precision, layers in measured.layers.items():
        rows = [
            [r.layer or r.node, r.operator, format_duration(r.ns / 1e9), f"{100 * r.share:.1f} %"]
            for r in layers[:_LAYERS_SHOWN]
        ]
        print_table([f"{precision}, slowest layers", "operator", "median", "share"], rows)


STAGES = ("teacher", "ladder", "distill", "quantize", "export", "verify", "profile", "report")
"""Of `compress`, in order; a run that takes a larger candidate comes back to `distill`."""


class RunDisplay:
    """Live progress of a run: a bar on a terminal, a line now and then elsewhere."""

    _LINE_SECONDS = 10.0

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._figure = ""
        self._printed = -1e9

    def open(self) -> None:
        """Begin to draw."""
        if self._quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._bar.start()

    def close(self) -> None:
        """Stop drawing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def stage(self, name: str) -> None:
        """A stage begins."""
        if self._quiet:
            return
        title = f"{STAGES.index(name) + 1}/{len(STAGES)} {name}" if name in STAGES else name
        if self._bar is None:
            click.echo(title, err=True)
            return
        if self._task is not None:
            self._bar.update(self._task, completed=1.0, note=self._figure)
        self._figure = ""
        self._task = self._bar.add_task(f"{title:<12}", total=1.0, note="")

    def progress(self, progress: Progress) -> None:
        """Distillation moves on."""
        if self._quiet:
            return
        if progress.fidelity is not None:
            self._figure = f"predicted fidelity {100 * progress.fidelity:.1f} %"
        elif progress.agreement is not None and not self._figure.startswith("predicted"):
            self._figure = f"agreement on generated images {100 * progress.agreement.generated:.1f} %"
        note = self._note(progress)
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.fraction, note=note)
        elif progress.seconds - self._printed >= self._LINE_SECONDS:
            self._printed = progress.seconds
            click.echo(f"  {100 * progress.fraction:3.0f} %  {note}", err=True)

    def _note(self, progress: Progress) -> str:
        """Time left and one figure that means something; losses only with `-v`."""
        from edgedafl.cli.options import is_verbose
        from edgedafl.units import format_count, format_duration

        left = progress.seconds * (1 / max(progress.fraction, 1e-3) - 1)
        parts = [f"{format_duration(max(left, 1.0))} left", self._figure]
        if is_verbose():
            parts.append(f"{format_count(progress.images_per_second)} images/s")
            parts.append(" ".join(f"{name} {value:.3g}" for name, value in progress.losses.items()))
        return "  ".join(part for part in parts if part)


@contextmanager
def run_display(quiet: bool) -> Iterator[RunDisplay]:
    """A display that is closed whatever happens.

    Examples:
        >>> with run_display(quiet=True) as display:
        ...     display.stage("quantize")
    """
    display = RunDisplay(quiet)
    display.open()
    try:
        yield display
    finally:
        display.close()
