"""What the first screen of a report says, in every form, read by independent parsers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from edgedafl.report import summarize_run, write_report
from edgedafl.runs import RunDirectory

BAND = {"fidelity": 0.981, "low": 0.97, "high": 0.99, "cautious": 0.975, "kind": "predicted", "images": 0}
ESTIMATE = {"device": "rpi5", "median": 2e6, "low": 1.5e6, "high": 3e6, "tier": "B", "basis": "", "kind": "estimate"}


def summary(median: float) -> dict[str, Any]:
    """Of 900 times that differ by a hundredth."""
    ends = {"minimum": 0.99 * median, "median_low": 0.995 * median, "median_high": 1.005 * median}
    rest = {"p90": 1.01 * median, "p99": 1.02 * median, "mean": median, "variation": 0.01, "drift": 0.0}
    return {"count": 900, "median": median, **ends, **rest}


def limit(title: str, value: str, limit: str, excess: str) -> dict[str, Any]:
    """One verdict; without an excess the limit holds."""
    named = {"name": title.replace(" ", "_"), "title": title, "value": value, "limit": limit, "edit": "the flag"}
    return {**named, "passed": not excess, "excess": excess}


HERE = {
    "kind": "measured",
    "device": "local",
    "summaries": {"fp32": summary(4e5), "int8": summary(1e5)},
    "warnings": [],
    "environment": {"cpu": "Some CPU", "runtime": "onnxruntime 1", "threads": 1},
    "warm_up_seconds": 2.0,
    "speed_up": {"int8": 4.0},
}
MANIFEST: dict[str, Any] = {
    "schema": 1,
    "command": "edgedafl compress <b>.onnx | tee",
    "config": {"seed": 0},
    "target": {"name": "rpi5", "title": "Raspberry Pi 5"},
    "precision": "int8",
    "teacher": {
        "name": "my|model_<b>.onnx",
        "source": "models/my|model_<b>.onnx",
        "layout": "NCHW",
        "dtype": "float32",
        "output": "logits",
        "has_features": True,
        "batch_norms": 0,
        "batch": None,
        "sha256": "ef" * 32,
        "task": "single-label",
        "num_classes": 3,
        "input_shape": [3, 8, 8],
        "preprocess": {"low": [0.0] * 3, "high": [1.0] * 3, "origin": "range"},
        "size": 400_000,
        "parameters": 100_000,
        "macs": 1_000_000,
        "access": "gradient",
    },
    "student": {
        "name": "kept:1",
        "architecture": "pruned",
        "width": 1.0,
        "input_shape": [3, 8, 8],
        "num_classes": 3,
        "parameters": 100_000,
        "macs": 1_000_000,
    },
    "verdict": {"band": BAND, "floor": 0.95, "holds": True, "sentence": "Faithful: 98.1 %."},
    "gate": {
        "subject": "runs/mine",
        "verdicts": [
            limit("file size", "100 kB", "90 kB", "10 kB"),
            limit("accuracy", "not known", "90 %", "unknown"),
            limit("MACs", "1 M", "2 M", ""),
        ],
    },
    "versions": {"edgedafl": "0"},
    "stages": {
        "export": {
            "inputs": "",
            "outputs": {"bundles/rpi5/model.int8.onnx": "ab" * 32, "bundles/rpi5/README.md": "cd" * 32},
            "result": {
                "exporter": "onnx",
                "directory": "bundles/rpi5",
                "archive": "bundles/rpi5.tar.gz",
                "primary": "model.int8.onnx",
                "precision": "int8",
                "sizes": {"fp32": 402_000, "int8": 100_000},
                "float_size": 402_000,
            },
        },
        "quantize": {"inputs": "", "outputs": {}, "result": {"precision": "int8", "method": "robust", "coverage": 1.0}},
        "verify": {
            "inputs": "",
            "outputs": {},
            "result": {
                "agreement": {"fp32": 0.9, "int8": 0.8},
                "parity": {"student fp32 against int8": {"relative_error": 0.01, "same_class": 0.99, "rows": 100}},
                "accuracy": {"teacher": 0.9, "fp32": 0.9, "int8": 0.89},
                "lost": {"int8": [{"name": "ant|x", "images": 4, "teacher": 1.0, "artifact": 0.5, "taken_for": "bee"}]},
                "confusions": {"int8": [{"name": "ant|x", "answered": "bee", "teacher": 1, "artifact": 3}]},
            },
        },
        "profile": {"inputs": "", "outputs": {}, "result": {"estimate": ESTIMATE, "measured": HERE}},
    },
}


def run_with(folder: Path, profile: dict[str, Any] | None = None, **changes: Any) -> RunDirectory:
    manifest = copy.deepcopy(MANIFEST) | changes
    if profile is not None:
        manifest["stages"]["profile"]["result"] = profile
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(manifest))
    return RunDirectory(folder)


def figures(run: RunDirectory) -> dict[str, tuple[str, str, str]]:
    return {f.name: (f.value, f.change, f.basis) for f in summarize_run(run).headline}


def test_the_first_screen_says_size_latency_and_fidelity_with_what_they_rest_on(tmp_path: Path) -> None:
    found = figures(run_with(tmp_path))
    assert found["Size"] == ("100 kB", "4.0 times smaller than the teacher's 400 kB", "the int8 file")
    value, change, basis = found["Latency"]
    assert value == "2 ms", "this machine is not the target: its 100 us are not the target's latency"
    assert change == "" and basis == "estimated for Raspberry Pi 5, not measured: 1.5 ms to 3 ms, tier B"
    assert found["Fidelity"] == ("98.1 %", "at least 95 % asked for", "predicted: 97.0 to 99.0 % in 90 of 100 cases")


@pytest.mark.parametrize(
    ("profile", "value", "words"),
    [
        ({"measured": HERE}, "100 µs", "measured on this machine (Some CPU)"),
        ({"measured": {**HERE, "device": "my-pi"}, "estimate": ESTIMATE}, "100 µs", "measured on my-pi (Some CPU)"),
        ({"measured": {**HERE, "kind": "emulated", "device": "qemu"}, "estimate": ESTIMATE}, "2 ms", "estimated"),
        ({"measured": {**HERE, "kind": "emulated", "device": "qemu"}}, "", "not measured on Raspberry Pi 5"),
        ({"failed": "No route to host."}, "", "No route to host."),
        ({}, "", "not measured on Raspberry Pi 5"),
    ],
)
def test_latency_is_called_what_it_is(profile: dict[str, Any], value: str, words: str, tmp_path: Path) -> None:
    found = figures(run_with(tmp_path, profile))["Latency"]
    assert found[0] == value
    assert words in found[2]


def test_integers_that_are_slower_are_said_to_be(tmp_path: Path) -> None:
    found = figures(run_with(tmp_path, {"measured": {**HERE, "speed_up": {"int8": 0.5}}}))["Latency"]
    assert found[1] == "2.00 times as slow as the student in float32"


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Head and rows of each table, as CommonMark with tables reads them."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append("".join(child.content for child in token.children or []))
        elif token.type == "table_close":
            yield rows[0], rows[1:]
            rows = []


def test_markdown_is_tables_to_an_independent_parser(tmp_path: Path) -> None:
    write_report(run_with(tmp_path), ("md",))
    found = list(tables((tmp_path / "report.md").read_text()))
    heads = [head for head, _ in found]
    assert heads == [
        ["", "artifact", "change", "basis"],
        ["limit", "found", "allowed", "verdict"],
        ["", "teacher", "student fp32", "artifact int8"],
        ["class", "images", "teacher", "artifact", "taken for"],
        ["class", "answered", "by the teacher", "by the artifact"],
    ]
    assert all(len(row) == len(head) for head, rows in found for row in rows)
    assert found[0][1][0][:2] == ["Size", "100 kB"]
    assert [row[3] for row in found[1][1]] == ["fails by 10 kB", "fails", "holds"]
    assert found[3][1] == [["ant|x", "4", "100.00 %", "50.00 %", "bee"]]


class Page(HTMLParser):
    """Texts by the tag that holds them, and tags that are open."""

    VOID = frozenset({"meta", "img", "br", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((self.open[-1], data.strip()))


def test_the_page_is_well_formed_and_what_it_shows_can_be_reached(tmp_path: Path) -> None:
    write_report(run_with(tmp_path), ("html",))
    page = Page()
    page.feed((tmp_path / "report.html").read_text())
    assert page.open == []
    assert [text for tag, text in page.texts if tag == "h1"] == ["my|model_<b>.onnx on Raspberry Pi 5"]
    big = [text for tag, text in page.texts if text in ("100 kB", "2 ms", "98.1 %")]
    assert big[:3] == ["100 kB", "2 ms", "98.1 %"]
    # A table that is wider than a phone is scrolled alone, by keyboard as well.
    boxes = [attributes for tag, attributes in page.seen if attributes.get("class") == "scroll"]
    assert len(boxes) == sum(tag == "table" for tag, _ in page.seen)
    assert all(box["role"] == "region" and box["aria-label"] and box["tabindex"] == "0" for box in boxes)
    assert all(attributes.get("scope") for tag, attributes in page.seen if tag == "th")
    names = [attributes["aria-label"] for tag, attributes in page.seen if attributes.get("role") == "img"]
    assert "File sizes" in names
    assert ("code", "ab" * 32) in page.texts and "cd" * 32 not in str(page.texts)


def test_a_verdict_that_does_not_hold_looks_like_it(tmp_path: Path) -> None:
    verdict = {"band": BAND, "floor": 0.99, "holds": False, "sentence": "Not faithful."}
    write_report(run_with(tmp_path, verdict=verdict), ("html",))
    assert '<p class="verdict fails">Not faithful.</p>' in (tmp_path / "report.html").read_text()
