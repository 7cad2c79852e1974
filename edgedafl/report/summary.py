"""What a report says, collected from a run's manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgedafl.report.advice import advice_of
from edgedafl.report.facts import facts_of, query_facts
from edgedafl.report.headline import Figure, headline
from edgedafl.rundir import RunDirectory
from edgedafl.units import format_bytes, format_count, format_duration

__all__ = ["Column", "Confusion", "GateRow", "LostRow", "RunSummary", "Rung", "summarize_run"]

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
        raw: The manifest.
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
    raw: dict[str, Any]


def summarize_run(run: RunDirectory) -> RunSummary:
    """Collect the summary of a finished run.

    Raises:
        UsageError: If the directory is no run.
    """
    with run.reading() as manifest:
        results = {name: stage["result"] for name, stage in manifest.get("stages", {}).items()}
        teacher = manifest["teacher"]
        return RunSummary(
            title=f"{teacher['name']} on {manifest['target']['title']}",
            command=manifest["command"],
            columns=tuple(_columns(manifest, results)),
            facts=(*facts_of(manifest, results), *query_facts(manifest, run)),
            advice=tuple(advice_of(results)),
            checks=tuple(_checks(results.get("verify", {}))),
            verdict=str((manifest.get("verdict") or {}).get("sentence", "")),
            ladder=tuple(_ladder(manifest)),
            holds=bool((manifest.get("verdict") or {}).get("holds", True)),
            headline=headline(manifest, results),
            student=_student(manifest),
            gate=tuple(_gate(manifest)),
            lost=tuple(_lost(results)),
            confused=tuple(_confused(results)),
            files=tuple(_files(manifest)),
            raw=manifest,
        )


def _ladder(manifest: dict[str, Any]) -> list[Rung]:
    return [
        Rung(
            name=c["name"],
            size=format_bytes(c["size"]),
            macs=format_count(c["macs"]),
            latency="" if c["latency"] is None else format_duration(c["latency"]),
            untrained=_band(c["untrained"]),
            expected=_band(c["expected"]),
            taken=c["name"] == manifest["student"]["name"],
        )
        for c in manifest.get("ladder") or []
    ]


def _lost(results: dict[str, Any]) -> list[LostRow]:
    by_precision = results.get("verify", {}).get("lost", {})
    precision = results.get("quantize", {}).get("precision", "fp32")
    rows = by_precision.get(precision, [])
    return [
        LostRow(r["name"], str(r["images"]), _percent(r["teacher"]), _percent(r["artifact"]), r["taken_for"])
        for r in rows
    ]


def _student(manifest: dict[str, Any]) -> str:
    student, whole = manifest["student"], manifest["teacher"]["parameters"]
    share = f", {100 * student['parameters'] / whole:.0f} % of the teacher's" if whole else ""
    return f"{student['name']}: {format_count(student['parameters'])} weights{share}"


def _confused(results: dict[str, Any]) -> list[Confusion]:
    precision = results.get("quantize", {}).get("precision", "fp32")
    rows = results.get("verify", {}).get("confusions", {}).get(precision, [])
    return [Confusion(r["name"], r["answered"], str(r["teacher"]), str(r["artifact"])) for r in rows]


def _gate(manifest: dict[str, Any]) -> list[GateRow]:
    verdicts = (manifest.get("gate") or {}).get("verdicts", [])
    return [
        GateRow(v["title"], v["value"], v["limit"], "holds" if v["passed"] else _excess(v["excess"]), bool(v["passed"]))
        for v in verdicts
    ]


def _excess(text: str) -> str:
    return "fails" if text == "unknown" else f"fails by {text}"


def _files(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    outputs = manifest.get("stages", {}).get("export", {}).get("outputs", {})
    return [(name, digest) for name, digest in outputs.items() if name.endswith(_CHECKSUMMED)]


def _band(band: dict[str, Any] | None) -> str:
    if band is None:
        return ""
    return f"{100 * band['fidelity']:.1f} % ({100 * band['low']:.0f} to {100 * band['high']:.0f})"


def _columns(manifest: dict[str, Any], results: dict[str, Any]) -> list[Column]:
    teacher, student = manifest["teacher"], manifest["student"]
    verify, export = results.get("verify", {}), results.get("export", {})
    accuracies = verify.get("accuracy", {})
    summaries = results.get("profile", {}).get("measured", {}).get("summaries", {})
    columns = [
        Column(
            "teacher",
            format_bytes(teacher["size"]) if teacher["size"] else "",
            format_count(teacher["parameters"]) if teacher["parameters"] else "",
            format_count(teacher["macs"]) if teacher["macs"] else "",
            _latency(summaries.get("teacher")),
            "",
            _percent(accuracies.get("teacher")),
        )
    ]
    for precision, size in export.get("sizes", {}).items():
        name = "student" if precision == "fp32" else "artifact"
        columns.append(
            Column(
                f"{name} {precision}",
                format_bytes(size),
                format_count(student["parameters"]),
                format_count(student["macs"]),
                _latency(summaries.get(precision)),
                _percent(verify.get("agreement", {}).get(precision)),
                _percent(accuracies.get(precision)),
            )
        )
    return columns


def _latency(summary: dict[str, Any] | None) -> str:
    if not summary:
        return ""
    return format_duration(summary["median"] / 1e9)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _checks(verify: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, f"relative error {c['relative_error']:.2g}, same class {100 * c['same_class']:.1f} % of {c['rows']}")
        for name, c in verify.get("parity", {}).items()
    ]
