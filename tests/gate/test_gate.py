"""Limits and their reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgedafl.config import GateConfig, read_project
from edgedafl.errors import UsageError
from edgedafl.gate import Measured, check_limits, render


def report(source: Path | None = None):
    limits = GateConfig(max_size="100KB", min_agreement="98%", max_latency="1ms")
    return check_limits(limits, Measured(size=150_000, agreement=0.97, latency=0.5e-3), subject="m", source=source)


def test_text_says_value_limit_and_excess(tmp_path: Path) -> None:
    source = tmp_path / "edgedafl.toml"
    source.write_text("# budget\n[gate]\nmax_latency = '1ms'\nmax_size = '100KB'\n")
    text = render(report(source))
    assert "FAIL  file size: 150 kB, limit 100 kB, exceeded by 50 kB" in text
    assert f"raise max_size in {source}:4" in text
    assert "FAIL  synthetic agreement: 97.00 %, limit 98.00 %, missed by 1.00 points" in text
    assert "pass  latency (median): 500 µs, limit 1 ms" in text
    assert text.endswith("m: 2 of 3 limits fail")


def test_a_limit_without_a_value_fails() -> None:
    found = check_limits(GateConfig(min_accuracy=0.9, max_latency=1), Measured(latency_is_estimate=True), subject="m")
    assert not found.passed
    assert "--eval" in render(found)
    assert "estimated only" in render(found)


def test_exactly_at_the_limit_passes() -> None:
    assert check_limits(GateConfig(max_size=10), Measured(size=10), subject="m").passed


def test_no_limit_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no limit"):
        check_limits(GateConfig(), Measured(size=1), subject="m")


def test_machine_formats() -> None:
    found = report()
    assert json.loads(render(found, "json"))["passed"] is False
    suite = ElementTree.fromstring(render(found, "junit"))
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    lines = render(found, "github").splitlines()
    assert lines[0].startswith("::error title=file size::file size: 150 kB")
    assert lines[2].startswith("::notice ")


def test_github_annotations_cannot_be_injected() -> None:
    limits = GateConfig(max_size=1)
    found = check_limits(limits, Measured(size=2), subject="x")
    evil = replace(found, verdicts=(replace(found.verdicts[0], value="1\n::set-output name=a::b"),))
    assert "\n" not in render(evil, "github")


def test_project_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        "[tool.edgedafl.gate]\nmax_size = '1MB'\n[tool.edgedafl.compress]\ntarget = 'rpi4'\n"
    )
    monkeypatch.chdir(tmp_path / "sub")
    project = read_project()
    assert project.gate.max_size == 1_000_000
    assert project.compress == {"target": "rpi4"}
    (tmp_path / "sub" / "edgedafl.toml").write_text("[gate]\nmax_siez = 3\n")
    with pytest.raises(UsageError) as caught:
        read_project()
    assert "max_siez" in caught.value.message
    assert "'max_size'" in caught.value.hint
    (tmp_path / "sub" / "edgedafl.toml").write_text("[gate\n")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_project()
