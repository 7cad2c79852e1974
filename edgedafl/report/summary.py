"""What a report says, collected from a run's manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgedafl.report.advice import advice_of
from edgedafl.report.facts import facts_of, query_facts
from edgedafl.report.headline import Figure, headline
from edgedafl.runs import (
    Band,
    Candidate,
    GateReport,
    LatencySummary,
    MeasuredLatency,
    RunDirectory,
    RunRecord,
    VerifyResult,
)
from edgedafl.units import format_bytes, format_count, format_duration

__all__ = [
    "Column",
    "Confusion",
    "GateRow",
    "LostRow",
    "RunSummary",
    "Rung",
    "summarize_record",
    "summarize_run",
    "title_of",
]

_CHECKSUMMED = (".onnx", ".ort", ".pte", ".engine", ".tar.gz", ".cpp")


@dataclass(frozen=True)
class Column:
    """One model of the comparison: teacher, float student, integer artifact.

    All values are formatted; an empty string means that it is not known.
    """

    title: str
    size: str
    parameters: str
    macs: str
    memory: str
    latency: str
    agreement: str
    accuracy: str


@dataclass(frozen=True)
class Rung:
    """One candidate of the ladder, formatted."""

    name: str
    size: str
    macs: str
    latency: str
    untrained: str
    expected: str
    taken: bool


@dataclass(frozen=True)
class LostRow:
    """A class of which the artifact knows fewer images than the teacher, formatted."""

    name: str
    images: str
    teacher: str
    artifact: str
    taken_for: str


@dataclass(frozen=True)
class Confusion:
    """One class answered for another on labelled images, with how often the teacher and the artifact do so."""

    name: str
    answered: str
    teacher: str
    artifact: str


@dataclass(frozen=True)
class GateRow:
    """One limit and how it fared, formatted."""

    limit: str
    found: str
    allowed: str
    verdict: str
    passed: bool


@dataclass(frozen=True)
class RunSummary:
    """Everything the report shows, formatted once for all of its forms.

    Attributes:
        title: One line.
        command: The exact command.
        columns: Teacher to artifact.
        facts: Names and values about the run.
        advice: Sentences the user should read.
        checks: Rows of the verification.
        verdict: How faithful the artifact is, in one sentence; empty for runs that never came so far.
        ladder: The candidates that were considered, smallest first.
        holds: Whether the verdict is a good one.
        headline: Size, latency and fidelity.
        student: What it is, in one line.
        gate: Limits, where the run was held against any.
        lost: Of the artifact, the classes that lose most on labelled images.
        confused: Of the artifact, the pairs of classes that are confused most often.
        files: Names and sha256 of what is to be deployed.
        device: Whose latency the comparison shows; empty where none was measured.
    """

    title: str
    command: str
    columns: tuple[Column, ...]
    facts: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]
    checks: tuple[tuple[str, str], ...]
    verdict: str
    ladder: tuple[Rung, ...]
    holds: bool
    headline: tuple[Figure, ...]
    student: str
    gate: tuple[GateRow, ...]
    lost: tuple[LostRow, ...]
    confused: tuple[Confusion, ...]
    files: tuple[tuple[str, str], ...]
    device: str


def summarize_run(run: RunDirectory) -> RunSummary:
    """Collect the summary of a finished run.

    Raises:
        UsageError: If the directory is not a run.

    Examples:
        >>> summarize_run(RunDirectory("runs/teacher-rpi4")).title
        'teacher.onnx on Raspberry Pi 4 (ONNX Runtime, CPU)'
    """
    return summarize_record(run.record(), run)


def summarize_record(record: RunRecord, run: RunDirectory) -> RunSummary:
    """The same of a record that was read already.

    Args:
        record: Of the run.
        run: For the progress that it kept.

    Examples:
        >>> run = RunDirectory("runs/teacher-rpi4")
        >>> summarize_record(run.record(), run).title
        'teacher.onnx on Raspberry Pi 4 (ONNX Runtime, CPU)'
    """
    verdict, measured = record.verdict, record.profiled.measured if record.profiled else None
    return RunSummary(
        title=f"{record.teacher.name} on {record.target.title}",
        command=record.command,
        columns=tuple(_columns(record, measured)),
        facts=(*facts_of(record), *query_facts(record, run)),
        advice=advice_of(record),
        checks=tuple(_checks(record.verified)),
        verdict="" if verdict is None else verdict.sentence,
        ladder=tuple(_rung(c, taken=c.is_of(record.student.name, record.weight_bits)) for c in record.ladder or ()),
        holds=verdict is None or verdict.holds,
        headline=headline(record),
        student=_student(record),
        gate=tuple(_gate(record.gate)),
        lost=tuple(_lost(record)),
        confused=tuple(_confused(record)),
        files=tuple(_files(record)),
        device="" if measured is None else measured.device,
    )


def _rung(candidate: Candidate, *, taken: bool) -> Rung:
    return Rung(
        name=candidate.title,
        size=format_bytes(candidate.size),
        macs=format_count(candidate.macs),
        latency="" if candidate.latency is None else format_duration(candidate.latency),
        untrained=_band(candidate.untrained),
        expected=_band(candidate.expected),
        taken=taken,
    )


def _lost(record: RunRecord) -> Iterator[LostRow]:
    for row in record.verified.lost.get(record.shipped, ()) if record.verified else ():
        yield LostRow(row.name, str(row.images), _percent(row.teacher), _percent(row.artifact), row.taken_for)


def _confused(record: RunRecord) -> Iterator[Confusion]:
    for row in record.verified.confusions.get(record.shipped, ()) if record.verified else ():
        yield Confusion(row.name, row.answered, str(row.teacher), str(row.artifact))


def _student(record: RunRecord) -> str:
    student, whole = record.student, record.teacher.parameters
    share = f", {100 * student.parameters / whole:.0f} % of the teacher's" if whole else ""
    integer = record.quantized if record.shipped == "int8" else None
    return f"{student.name}: {format_count(student.parameters)} weights{share}{integer.in_bits if integer else ''}"


def _gate(report: GateReport | None) -> Iterator[GateRow]:
    for v in report.verdicts if report else ():
        yield GateRow(v.title, v.value, v.limit, "holds" if v.passed else _excess(v.excess), v.passed)


def _excess(text: str) -> str:
    return "fails" if text == "unknown" else f"fails by {text}"


def _files(record: RunRecord) -> list[tuple[str, str]]:
    stage = record.stages.get("export")
    return [] if stage is None else [(n, digest) for n, digest in stage.outputs.items() if n.endswith(_CHECKSUMMED)]


def _band(band: Band | None) -> str:
    if band is None:
        return ""
    return f"{100 * band.fidelity:.1f} % ({100 * band.low:.0f} to {100 * band.high:.0f})"


def _columns(record: RunRecord, measured: MeasuredLatency | None) -> Iterator[Column]:
    teacher, student = record.teacher, record.student
    accuracies = record.verified.accuracy if record.verified else {}
    agreements = record.verified.agreement if record.verified else {}
    times = measured.summaries if measured else {}
    yield Column(
        "teacher",
        format_bytes(teacher.size) if teacher.size else "",
        format_count(teacher.parameters) if teacher.parameters else "",
        format_count(teacher.macs) if teacher.macs else "",
        "",
        _latency(times.get("teacher")),
        "",
        _percent(accuracies.get("teacher")),
    )
    for precision, size in record.exported.sizes.items() if record.exported else ():
        yield Column(
            title_of(precision),
            format_bytes(size),
            format_count(student.parameters),
            format_count(student.macs),
            _bytes(record.exported.memory.get(precision)) if record.exported else "",
            _latency(times.get(precision)),
            _percent(agreements.get(precision)),
            _percent(accuracies.get(precision)),
        )


def title_of(precision: str) -> str:
    """What a precision's file is called in tables and plots.

    Examples:
        >>> title_of("fp16")
        'artifact fp16'
    """
    return f"{'student' if precision == 'fp32' else 'artifact'} {precision}"


def _bytes(value: int | None) -> str:
    return "" if value is None else format_bytes(value)


def _latency(summary: LatencySummary | None) -> str:
    return "" if summary is None else format_duration(summary.median / 1e9)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _checks(found: VerifyResult | None) -> Iterator[tuple[str, str]]:
    for name, c in found.parity.items() if found else ():
        yield name, f"relative error {c.relative_error:.2g}, same class {100 * c.same_class:.1f} % of {c.rows}"
