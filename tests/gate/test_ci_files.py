"""The Action, the GitLab include and the pre-commit hook, run through their own shell steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import LINEAR, ROOT, tiny_text
from tests.gate.test_relative import git, larger
from tests.report.test_report import run_with

Save = Callable[..., Path]
BIN = Path(sys.executable).parent


@pytest.fixture
def repository(save: Save, tmp_path: Path) -> Path:
    """A repository whose main branch has a model; the working tree may change it."""
    save(tiny_text(LINEAR))
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "model.onnx")
    git(tmp_path, "commit", "-q", "-m", "model")
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Without torch: what is installed for a gate has none."""
    poisoned = folder / "without"
    for name in ("torch", "onnxruntime", "onnx"):
        (poisoned / name).mkdir(parents=True, exist_ok=True)
        (poisoned / name / "__init__.py").write_text(f"raise ImportError('no {name} here')")
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{poisoned}{os.pathsep}{ROOT}", **more}


def action_step(name: str) -> str:
    steps = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    return next(step["run"] for step in steps if step["name"] == name)


def run_action(folder: Path, path: str, flags: str, baseline: str) -> tuple[int, str, str]:
    """Exit code, annotations and summary of the Action's gate."""
    summary = folder / "summary.md"
    summary.unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", action_step("Gate")],
        cwd=folder,
        env=environment(
            folder, GATE_PATH=path, GATE_FLAGS=flags, GATE_BASELINE=baseline, GITHUB_STEP_SUMMARY=str(summary)
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, summary.read_text()


def test_the_action_on_growth_within_and_beyond(save: Save, repository: Path) -> None:
    flags = "--max-size 1MB --max-size-growth 5%"
    code, notes, summary = run_action(repository, "model.onnx", flags, "git:main")
    assert code == 0, notes
    assert "::notice title=growth of the file::" in notes
    assert "| growth of the file | +0.00 %" in summary
    larger(save, "model.onnx", 200)
    code, notes, summary = run_action(repository, "model.onnx", flags, "git:main")
    assert code == 1
    assert "::error title=growth of the file::" in notes
    assert "1 of 2 limits fail" in summary


def test_the_action_without_a_baseline_and_on_another_device(save: Save, repository: Path) -> None:
    save(tiny_text(LINEAR), "new.onnx")
    code, notes, summary = run_action(repository, "new.onnx", "--max-size-growth 5%", "git:main")
    assert code == 0 and "There is no baseline" in notes and "There is no baseline" in summary
    run_with(repository / "before")
    now = run_with(repository / "now")
    manifest = json.loads((now.path / "run.json").read_text())
    manifest["stages"]["profile"]["result"]["measured"]["device"] = "another-pi"
    (now.path / "run.json").write_text(json.dumps(manifest))
    code, notes, summary = run_action(repository, "now", "--max-slowdown 10%", "before")
    assert code == 1
    assert "different machines (local" in notes and "cannot be judged" in summary


def test_the_gitlab_job_reports_what_fails_and_ends_with_it(save: Save, repository: Path) -> None:
    job = yaml.safe_load((ROOT / "examples" / "ci" / "gitlab.yml").read_text())
    script = "\n".join(line for line in job["model-gate"]["script"] if "pip install" not in line)
    report = repository / job["model-gate"]["artifacts"]["reports"]["codequality"]

    def run(flags: str) -> tuple[int, list[dict[str, Any]]]:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script], cwd=repository, capture_output=True, check=False,
            env=environment(repository, MODEL="model.onnx", GATE_FLAGS=flags),
        )  # fmt: skip
        return done.returncode, json.loads(report.read_text())

    assert run("--baseline git:main --max-size-growth 5%") == (0, [])
    larger(save, "model.onnx", 200)
    code, issues = run("--baseline git:main --max-size-growth 5%")
    assert code == 1
    assert [issue["check_name"] for issue in issues] == ["edgedafl.max_size_growth"]


def test_the_pre_commit_hook_takes_all_files_that_changed(save: Save, repository: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    larger(save, "large.onnx", 1000)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*hook["entry"].split(), *arguments, "model.onnx", "large.onnx"]
        return subprocess.run(
            command, cwd=repository, env=environment(repository), capture_output=True, text=True, check=False
        )

    assert run("--max-size=1MB").returncode == 0
    small = run("--max-size=5kB")
    assert small.returncode == 1
    assert "model.onnx: the limit holds" in small.stdout and "large.onnx: the limit fails" in small.stdout
