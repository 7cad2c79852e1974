"""What a report says, collected from a run's manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgedafl.rundir import RunDirectory
from edgedafl.units import format_bytes, format_count, format_duration

__all__ = ["Column", "LostRow", "RunSummary", "Rung", "summarize_run"]

_HARDLY = 0.1
"""Share of the arithmetic in integers below which a file should not be called int8."""


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
        lost: Of the smallest artifact, the classes that lose most on labelled images.
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
    lost: tuple[LostRow, ...]
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
            facts=(*_facts(manifest, results), *_query_facts(manifest, run)),
            advice=tuple(_advice(results)),
            checks=tuple(_checks(results.get("verify", {}))),
            verdict=str((manifest.get("verdict") or {}).get("sentence", "")),
            ladder=tuple(_ladder(manifest)),
            lost=tuple(_lost(results)),
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


def _facts(manifest: dict[str, Any], results: dict[str, Any]) -> list[tuple[str, str]]:
    teacher, student = manifest["teacher"], manifest["student"]
    distill, quantize = results.get("distill", {}), results.get("quantize", {})
    measured = results.get("profile", {}).get("measured", {})
    estimate = results.get("profile", {}).get("estimate")
    facts = [
        (
            "Teacher",
            f"{teacher['name']}, {teacher['task']}, {teacher['num_classes']} classes, input {_shape(teacher['input_shape'])}",
        ),
        (
            "Input range",
            f"{teacher['preprocess']['low'][0]:.4g} to {teacher['preprocess']['high'][0]:.4g} ({teacher['preprocess']['origin']})",
        ),
        ("Student", f"{student['name']}, {format_count(student['parameters'])} parameters"),
    ]
    pictures = manifest.get("pictures")
    if pictures:
        bad = f", {pictures['unreadable']} files were not pictures" if pictures["unreadable"] else ""
        facts.append(("Your pictures", f"{pictures['used']} of {pictures['found']} in {pictures['source']}{bad}"))
    if distill:
        facts.append(
            (
                "Distillation",
                f"{distill['method']}, {distill['steps']} steps in {format_duration(distill['seconds'])}, {format_count(distill['queries'])} teacher queries",
            )
        )
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in distill["agreement"]["sets"].items())
        facts.append(("Synthetic agreement", shares))
    if quantize.get("method"):
        facts.append(
            (
                "Quantization",
                f"{quantize['method']} calibration on generated images, {100 * quantize.get('coverage', 0):.1f} % of the MACs in integers",
            )
        )
    if estimate:
        low, mid, high = (format_duration(estimate[k] / 1e9) for k in ("low", "median", "high"))
        facts.append(
            (
                f"Latency on {estimate['device']}",
                f"estimate, not measured: {mid} ({low} to {high}, tier {estimate['tier']})",
            )
        )
    if measured:
        environment = measured["environment"]
        facts.append(
            (
                "Emulated on (no device's times)" if measured["kind"] == "emulated" else "Measured on",
                f"{environment.get('cpu') or environment.get('board')}, {environment['runtime']}, {environment['threads']} thread(s), batch 1",
            )
        )
        counts = {name: s["count"] for name, s in measured["summaries"].items()}
        facts.append(
            (
                "Samples",
                ", ".join(f"{name} {count}" for name, count in counts.items())
                + f"; warm-up {measured['warm_up_seconds']:.1f} s",
            )
        )
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return [*facts, ("Versions", versions), ("Seed", str(manifest["config"]["seed"]))]


def _query_facts(manifest: dict[str, Any], run: RunDirectory) -> list[tuple[str, str]]:
    """Agreement against queries, at a few moments, where the teacher only answers."""
    if manifest["teacher"]["access"] == "gradient":
        return []
    rows = [(m["queries"], m["agreement"]["generated"]) for m in run.read_metrics() if m.get("agreement")]
    done = manifest.get("stages", {}).get("distill", {}).get("result")
    last = [(done["queries"], done["agreement"]["generated"])] if done else []
    chosen = [*rows[:: max(1, len(rows) // 6)], *last]
    text = ", ".join(f"{format_count(queries)}: {100 * share:.0f} %" for queries, share in chosen)
    return [("Access", manifest["teacher"]["access"]), ("Agreement by queries", text)] if text else []


def _shape(sides: list[int]) -> str:
    return "x".join(str(side) for side in sides)


def _advice(results: dict[str, Any]) -> list[str]:
    advice = list(results.get("distill", {}).get("recoveries", []))
    advice += results.get("distill", {}).get("warnings", [])
    advice += _training_advice(results.get("distill", {}))
    profile = results.get("profile", {})
    advice += profile.get("measured", {}).get("warnings", [])
    if profile.get("recommendation"):
        advice.append(profile["recommendation"]["text"])
    if profile.get("failed"):
        advice.append(f"The latency was not measured: {profile['failed']}")
    return [*advice, *_integer_advice(results.get("quantize", {}))]


def _training_advice(distill: dict[str, Any]) -> list[str]:
    """What became of training, where it is not what one expects."""
    if distill.get("trained") is not False:
        return []
    if not distill["steps"]:
        return ["Nothing was trained: the student is the teacher itself, or the time allowed next to no step."]
    return [f"{distill['steps']} steps of training did not help: the refitted weights were kept."]


def _integer_advice(quantize: dict[str, Any]) -> list[str]:
    """What accuracy control did, and what it could not."""
    advice = list(quantize.get("advice", []))
    if quantize.get("trained"):
        advice.append(
            "The int8 weights were trained under rounding on generated images: calibration alone lost too much."
        )
    kept = quantize.get("kept_float", [])
    if kept:
        names = ", ".join(row["layer"] for row in kept)
        advice.append(
            f"{len(kept)} layers stay float so that int8 loses at most {100 * quantize['max_drop']:.2f} points "
            f"of agreement: {names}; {100 * quantize['coverage']:.1f} % of the MACs run in integers."
        )
    if quantize.get("coverage", 1.0) < _HARDLY:
        advice.append(
            f"Only {100 * quantize['coverage']:.0f} % of the MACs run in integers: the file called int8 is a float model "
            "in all but its name. Take fp32 or fp16."
        )
    if quantize.get("holds") is False:
        advice.append(
            f"int8 loses more than the allowed {100 * quantize['max_drop']:.2f} points of agreement on synthetic images. "
            "Real images are clearer; the verdict says what is expected of them."
        )
    return advice


def _checks(verify: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, check in verify.get("parity", {}).items():
        rows.append(
            (
                name,
                f"relative error {check['relative_error']:.2g}, same class {100 * check['same_class']:.1f} % of {check['rows']}",
            )
        )
    return rows
