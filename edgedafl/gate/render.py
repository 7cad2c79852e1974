"""Gate reports as text, JSON, JUnit, Markdown, and as GitHub and GitLab show them."""

from __future__ import annotations

import hashlib
import json
from xml.etree import ElementTree

from edgedafl.runs import GateReport, Verdict

__all__ = ["FORMATS", "render"]


def render(report: GateReport, form: str = "text") -> str:
    """The report in one of `FORMATS`.

    Examples:
        >>> from edgedafl.runs import Verdict
        >>> verdict = Verdict("max_size", "Size", True, "900 kB", "1 MB", "", "--max-size")
        >>> print(render(GateReport("runs/mine", (verdict,)), "markdown").splitlines()[0])
        **runs/mine**: the limit holds

        | limit | found | allowed | verdict |
        |---|---:|---:|---|
        | Size | 900 kB | 1 MB | holds |
    """
    return FORMATS[form](report)


def _sentence(verdict: Verdict) -> str:
    if verdict.passed:
        return f"{verdict.title}: {verdict.value}, limit {verdict.limit}"
    if verdict.excess == "unknown":
        return f"{verdict.title}: {verdict.value}; limit {verdict.limit}"
    short = "missed" if verdict.name.startswith("min") else "exceeded"
    return f"{verdict.title}: {verdict.value}, limit {verdict.limit}, {short} by {verdict.excess}"


def _text(report: GateReport) -> str:
    lines = []
    for verdict in report.verdicts:
        lines.append(f"{'pass' if verdict.passed else 'FAIL'}  {_sentence(verdict)}")
        if not verdict.passed:
            lines.append(f"      shrink the model, or raise {verdict.name} in {verdict.edit}")
    lines += report.notes
    if report.verdicts:
        lines.append(f"{report.subject}: {_outcome(report)}")
    return "\n".join(lines)


def _outcome(report: GateReport) -> str:
    """How many limits hold or fail, in words."""
    failed, total = sum(not v.passed for v in report.verdicts), len(report.verdicts)
    if total == 1:
        return "the limit fails" if failed else "the limit holds"
    return f"{failed} of {total} limits fail" if failed else f"all {total} limits hold"


def _json(report: GateReport) -> str:
    return json.dumps(report.to_dict(), indent=2)


def _junit(report: GateReport) -> str:
    failures = sum(not v.passed for v in report.verdicts)
    suite = ElementTree.Element(
        "testsuite", name="edgedafl gate", tests=str(len(report.verdicts)), failures=str(failures)
    )
    for verdict in report.verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname=report.subject, name=verdict.name)
        if not verdict.passed:
            ElementTree.SubElement(case, "failure", message=_sentence(verdict)).text = verdict.edit
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _github(report: GateReport) -> str:
    lines = []
    for verdict in report.verdicts:
        level = "notice" if verdict.passed else "error"
        file, line = _place(verdict)
        place = f"file={_escape(file, True)},line={line}," if file else ""
        lines.append(f"::{level} {place}title={_escape(verdict.title, True)}::{_escape(_sentence(verdict))}")
    lines += [f"::notice title=edgedafl::{_escape(note)}" for note in report.notes]
    return "\n".join(lines)


def _place(verdict: Verdict) -> tuple[str, int]:
    """File and line that hold a limit; no file and 1 where it is a flag."""
    file, colon, line = verdict.edit.rpartition(":")
    return (file, int(line)) if colon and line.isdigit() else ("", 1)


def _markdown(report: GateReport) -> str:
    """A table for a step summary or a comment."""
    lines = [f"**{_cell(report.subject)}**: {_outcome(report)}", ""]
    if report.verdicts:
        lines += ["| limit | found | allowed | verdict |", "|---|---:|---:|---|"]
    for verdict in report.verdicts:
        excess = "" if verdict.excess in ("", "unknown") else f" by {verdict.excess}"
        outcome = "holds" if verdict.passed else f"**fails**{excess}"
        lines.append(f"| {verdict.title} | {_cell(verdict.value)} | {verdict.limit} | {outcome} |")
    lines += [line for note in report.notes for line in ("", _cell(note))]
    return "\n".join(lines)


def _cell(text: str) -> str:
    for mark in "\\`*_<>|[]":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")


def _gitlab(report: GateReport) -> str:
    """GitLab's code quality report: failed limits only."""
    found = []
    for verdict in report.verdicts:
        if verdict.passed:
            continue
        file, line = _place(verdict)
        digest = hashlib.sha256(f"{report.subject}\n{verdict.name}".encode()).hexdigest()
        place = {"path": file or report.subject, "lines": {"begin": line}}
        found.append(
            {
                "description": _sentence(verdict),
                "check_name": f"edgedafl.{verdict.name}",
                "fingerprint": digest,
                "severity": "major",
                "location": place,
            }
        )
    return json.dumps(found, indent=2)


def _escape(text: str, is_property: bool = False) -> str:
    """GitHub's escapes: a model's name must not start another workflow command."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if is_property else text


FORMATS = {
    "text": _text,
    "json": _json,
    "junit": _junit,
    "markdown": _markdown,
    "github": _github,
    "gitlab": _gitlab,
}
"""Renderers by name."""
