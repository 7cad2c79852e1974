"""Histories of gated runs, and pages that compare runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.conftest import LINEAR, assert_clean_failure, edgedafl, tiny_text
from tests.report.test_report import HERE, Page, run_with, summary

Save = Callable[..., Path]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_each_gated_run_is_a_line_with_its_commit(save: Save, tmp_path: Path) -> None:
    model, history = save(tiny_text(LINEAR)), tmp_path / "history.jsonl"
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "model.onnx")
    git(tmp_path, "commit", "-q", "-m", "model")
    assert edgedafl("gate", model, "--max-size", "1MB", "--history", history).code == 0
    assert edgedafl("gate", model, "--max-size", "10B", "--max-macs", "1", "--history", history).code == 1
    run = run_with(tmp_path / "run")
    assert edgedafl("gate", run.path, "--max-size", "1MB", "--history", history).code == 0
    first, second, third = edgedafl("history", history, "--json").json
    assert first["commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert (first["passed"], first["size"], first["macs"]) == (True, model.stat().st_size, None)
    assert (second["passed"], second["failed"]) == (False, ["max_size", "max_macs"])
    assert (third["size"], third["fidelity"], third["latency"]) == (100_000, 0.981, 1e-4)
    text = edgedafl("history", history).out
    assert "fails: max_size, max_macs" in text and "98.10 %" in text
    assert len(edgedafl("history", history, "--last", "1", "--json").json) == 1


def test_the_page_of_a_history_has_plots_and_is_well_formed(tmp_path: Path) -> None:
    history, html = tmp_path / "h.jsonl", tmp_path / "h.html"
    for name in ("a", "b<i>"):
        run = run_with(tmp_path / name)
        assert edgedafl("gate", run.path, "--max-size", "1MB", "--history", history).code == 0
    assert edgedafl("history", history, "--html", html).code == 0
    page = Page()
    page.feed(html.read_text())
    assert page.open == []
    assert [a["aria-label"] for _, a in page.seen if a.get("role") == "img"] == [
        "Size of the artifact", "Weights", "Fidelity", "Median latency",
    ]  # fmt: skip
    assert "b<i>" not in html.read_text() and "b&lt;i&gt;" in html.read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"time": "x"}', '{"time": 3, "commit": "", "subject": "", "passed": 1}'])
def test_lines_that_are_not_of_a_history_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(text + "\n")
    assert_clean_failure(edgedafl("history", path), 2, "h.jsonl:1 is not a line of a history")


def test_a_missing_history(tmp_path: Path) -> None:
    assert_clean_failure(edgedafl("history", tmp_path / "none"), 2, "cannot be read", "--history FILE")


def test_runs_side_by_side_with_the_front_and_what_got_worse(tmp_path: Path) -> None:
    profile = {"measured": {**HERE, "device": "my-pi"}}
    slower = {"measured": {**HERE, "device": "my-pi", "summaries": {"int8": summary(2e5)}}}
    elsewhere = {"measured": {**HERE, "device": "my-phone"}}
    runs = [run_with(tmp_path / n, p).path for n, p in (("a", profile), ("b", slower), ("c", elsewhere))]
    page = tmp_path / "page.html"
    found = edgedafl("report", *runs, "-o", page, "--json").json
    assert found["runs"] == ["a", "b", "c"]
    (latency,) = [row for row in found["rows"] if row["name"] == "latency (median)"]
    assert [cell["value"] for cell in latency["cells"]] == ["100 µs", "200 µs", "100 µs"]
    assert [cell["change"] for cell in latency["cells"]] == ["", "+100.0 %", ""], "another device is not compared"
    assert [cell["worse"] for cell in latency["cells"]] == [False, True, False]
    html = page.read_text()
    assert '<span class="fails">(+100.0 %)</span>' in html and "Latency against fidelity" in html
    parsed = Page()
    parsed.feed(html)
    assert parsed.open == []


def test_a_diff_as_markdown_and_json(tmp_path: Path) -> None:
    a, b = run_with(tmp_path / "a|x").path, run_with(tmp_path / "b").path
    manifest = json.loads((b / "run.json").read_text())
    manifest["stages"]["export"]["result"]["sizes"]["int8"] = 90_000
    (b / "run.json").write_text(json.dumps(manifest))
    parsed = MarkdownIt("commonmark").enable("table").parse(edgedafl("diff", a, b, "--format", "markdown").out)
    cells = [token.content for token in parsed if token.type == "inline"]
    assert cells[:8] == ["", "a|x", "b", "change", "file size", "100 kB", "90 kB", "-10.0 %"]
    rows = edgedafl("diff", a, b, "--format", "json").json
    assert rows[0]["cells"][1] == {"value": "90 kB", "change": "-10.0 %", "better": True, "worse": False}


def test_the_page_of_one_run_is_its_report(tmp_path: Path) -> None:
    run = run_with(tmp_path / "a").path
    assert_clean_failure(edgedafl("report", run, "-o", tmp_path / "x.html"), 2, "several runs")
