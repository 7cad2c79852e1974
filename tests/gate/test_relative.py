"""Limits relative to what was accepted before, as the command line gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from markdown_it import MarkdownIt
from onnx import numpy_helper

from edgedafl.config import GateConfig
from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.gate import Baseline, Measured, check_growth, render
from edgedafl.graph.weigh import weigh
from edgedafl.runs import GateReport
from tests.conftest import LINEAR, assert_clean_failure, edgedafl, tiny_text
from tests.report.test_report import run_with

Save = Callable[..., Path]
NOW = Measured(
    size=103_000, fidelity=0.97, fidelity_kind="predicted",
    latency=1.2e-3, latency_low=1.15e-3, latency_high=1.25e-3, latency_place="pi, A72, ort 1, 1 threads, int8",
)  # fmt: skip
BEFORE = replace(NOW, size=100_000, fidelity=0.975, latency=1e-3, latency_low=0.95e-3, latency_high=1.1e-3)


def judged(before: Measured = BEFORE, now: Measured = NOW, **limits: float) -> GateReport:
    return check_growth(GateConfig(**limits), now, Baseline("main", before), subject="m")


def test_growth_is_relative_to_the_baseline() -> None:
    assert judged(max_size_growth=0.03).passed
    (verdict,) = judged(max_size_growth=0.02).verdicts
    assert not verdict.passed
    assert verdict.value == "+3.00 % (100 kB to 103 kB)"
    assert verdict.excess == "1.00 %"


def test_a_slowdown_counts_once_the_intervals_lower_end_exceeds_the_limit() -> None:
    (verdict,) = judged(max_slowdown=0.05).verdicts
    assert verdict.passed and verdict.value.startswith("+20.0 %, at least +4.5 %")
    assert not judged(max_slowdown=0.04).passed


def test_lost_fidelity_is_counted_in_points() -> None:
    assert judged(max_fidelity_loss=0.005).passed
    (verdict,) = judged(max_fidelity_loss=0.004).verdicts
    assert (verdict.passed, verdict.excess) == (False, "0.10 points")


@pytest.mark.parametrize(
    ("limit", "before", "words"),
    [
        ({"max_slowdown": 9.9e-1}, replace(BEFORE, latency_place="my-laptop"), "different machines (my-laptop and pi"),
        ({"max_slowdown": 9.9e-1}, replace(BEFORE, latency=None), "was not measured"),
        ({"max_fidelity_loss": 9.9e-1}, replace(BEFORE, fidelity_kind="measured on labelled images"), "different ways"),
        ({"max_fidelity_loss": 9.9e-1}, replace(BEFORE, fidelity=None), "not known"),
        ({"max_size_growth": 9.9e-1}, replace(BEFORE, size=None), "not known"),
    ],
)
def test_what_cannot_be_compared_fails_with_the_reason(limit: dict[str, float], before: Measured, words: str) -> None:
    found = judged(before, **limit)
    assert not found.passed
    assert words in render(found)


def test_markdown_and_gitlab_forms() -> None:
    found = replace(judged(max_size_growth=0.02, max_slowdown=0.05), subject="runs/a|b")
    parsed = MarkdownIt("commonmark").enable("table").parse(render(found, "markdown"))
    cells = [token.content for token in parsed if token.type == "inline"]
    assert cells[0] == "**runs/a\\|b**: 1 of 2 limits fail"
    assert cells[1:9] == [
        "limit", "found", "allowed", "verdict",
        "growth of the file", "+3.00 % (100 kB to 103 kB)", "2 %", "**fails** by 1.00 %",
    ]  # fmt: skip
    (issue,) = json.loads(render(found, "gitlab"))
    assert {"description", "fingerprint", "severity", "check_name", "location"} <= issue.keys()
    assert issue["location"]["lines"]["begin"] == 1


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def larger(save: Save, name: str, weights: int) -> Path:
    model = tiny_text(LINEAR)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(weights, np.float32), "more"))
    return save(model, name)


def test_external_data_counts_on_both_sides(tmp_path: Path) -> None:
    def with_data(weights: int) -> None:
        model = tiny_text(LINEAR)
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(weights, np.float32), "more"))
        onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)

    path = tmp_path / "model.onnx"
    gate = ("gate", path, "--baseline", "git:main", "--max-size-growth")
    git(tmp_path, "init", "-q", "-b", "main")
    with_data(10_000)
    git(tmp_path, "add", "model.onnx", "model.data")
    git(tmp_path, "commit", "-q", "-m", "model")
    assert edgedafl(*gate, "0%").code == 0
    (tmp_path / "model.data").unlink()  # onnx adds to a file that is there
    with_data(11_000)
    assert edgedafl(*gate, "5%").code == 1
    assert edgedafl(*gate, "15%").code == 0
    git(tmp_path, "rm", "-q", "--cached", "model.data")
    git(tmp_path, "commit", "-q", "-m", "without")
    assert_clean_failure(edgedafl(*gate, "5%"), 5, "'model.data', which that commit does not have")


def test_what_git_lfs_keeps_elsewhere_has_the_size_of_its_pointer(save: Save, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    model = larger(save, "model.onnx", 200)
    now = model.read_bytes()
    model.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize {round(len(now) / 1.1)}\n"
    )
    git(tmp_path, "add", "model.onnx")
    git(tmp_path, "commit", "-q", "-m", "as Git LFS commits it")
    model.write_bytes(now)
    assert edgedafl("gate", model, "--baseline", "git:main", "--max-size-growth", "9%").code == 1
    assert edgedafl("gate", model, "--baseline", "git:main", "--max-size-growth", "11%").code == 0


def test_a_pull_request_against_the_main_branch(save: Save, tmp_path: Path) -> None:
    model = save(tiny_text(LINEAR))
    git(tmp_path, "init", "-q", "-b", "main")
    gate = ("gate", model, "--baseline", "git:main", "--max-size-growth")
    assert_clean_failure(edgedafl(*gate, "5%"), 2, "no commit 'main'")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "empty")
    first = edgedafl(*gate, "5%")
    assert first.code == 0 and "There is no baseline 'git:main' yet" in first.out
    git(tmp_path, "add", "model.onnx")
    git(tmp_path, "commit", "-q", "-m", "model")
    assert edgedafl(*gate, "0%").code == 0
    larger(save, "model.onnx", 100)
    grown = edgedafl(*gate, "5%", "--format", "markdown")
    assert grown.code == 1 and "**fails** by" in grown.out
    assert edgedafl(*gate, "20%").code == 0
    assert_clean_failure(
        edgedafl("gate", model, "--baseline", "git:--help", "--max-size-growth", "5%"), 2, "git:--help"
    )


def test_an_accepted_model_is_the_next_baseline(save: Save, tmp_path: Path) -> None:
    model, baseline = save(tiny_text(LINEAR)), tmp_path / "edgedafl-baseline.json"
    (tmp_path / "edgedafl.toml").write_text(
        "[gate]\nmax_size = '10kB'\nmax_size_growth = '1%'\nbaseline = 'edgedafl-baseline.json'\n"
    )
    first = edgedafl("gate", model, cwd=tmp_path)
    assert first.code == 0 and "no baseline" in first.out
    assert edgedafl("gate", model, "--update-baseline", cwd=tmp_path).code == 0
    assert json.loads(baseline.read_text())["measured"]["size"] == model.stat().st_size
    assert edgedafl("gate", model, cwd=tmp_path).code == 0
    larger(save, "model.onnx", 100)
    assert edgedafl("gate", model, cwd=tmp_path).code == 1
    assert edgedafl("gate", model, "--update-baseline", cwd=tmp_path).code == 0
    assert edgedafl("gate", model, cwd=tmp_path).code == 0
    larger(save, "model.onnx", 10_000)  # beyond the limit that is not relative
    before = baseline.read_text()
    assert edgedafl("gate", model, "--update-baseline", cwd=tmp_path).code == 1
    assert baseline.read_text() == before


def test_runs_are_compared_by_what_was_measured_in_one_place(tmp_path: Path) -> None:
    a, b = run_with(tmp_path / "a"), run_with(tmp_path / "b")
    gate = ("gate", b.path, "--baseline", a.path)
    assert edgedafl(*gate, "--max-size-growth=0%", "--max-slowdown=1%", "--max-fidelity-loss=0%").code == 0
    manifest = json.loads((b.path / "run.json").read_text())
    manifest["stages"]["profile"]["result"]["measured"]["environment"]["cpu"] = "Another"
    (b.path / "run.json").write_text(json.dumps(manifest))
    other = edgedafl(*gate, "--max-slowdown=50%")
    assert other.code == 1 and "different machines" in other.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-size-growth", "5%"), "needs a baseline"),
        (("--baseline", "b.json", "--max-size-growth", "much"), "'much' is not a number"),
        (("--baseline", "b.txt", "--update-baseline"), ".json"),
        (("--update-baseline",), "writes a file"),
        (("--baseline", "text.json", "--max-size-growth", "5%"), "not a baseline"),
        (("--baseline", "later.json", "--max-size-growth", "5%"), "schema 9"),
        (("--baseline", "x.json"), "no limit"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    arguments: tuple[str, ...], words: str, save: Save, tmp_path: Path
) -> None:
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "later.json").write_text('{"schema": 9, "measured": {}}')
    assert_clean_failure(edgedafl("gate", save(tiny_text(LINEAR)), *arguments, cwd=tmp_path), 2, words)


def test_files_are_weighed_with_their_external_data_and_without_reading_weights(save: Save, tmp_path: Path) -> None:
    model = tiny_text(LINEAR)
    plain = save(model, "plain.onnx")
    assert weigh(plain) == plain.stat().st_size
    onnx.save(
        model,
        tmp_path / "apart.onnx",
        save_as_external_data=True,
        location="apart.bin",
        size_threshold=0,
    )
    assert weigh(tmp_path / "apart.onnx") == sum((tmp_path / f"apart.{end}").stat().st_size for end in ("onnx", "bin"))
    blob = plain.read_bytes()
    for name, content in (("cut", blob[:-40]), ("text", b"hello world, this is text"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnsupportedModelError):
            weigh(tmp_path / name)
    with pytest.raises(UsageError):
        weigh(tmp_path / "absent")


@pytest.mark.slow
def test_a_hundred_megabytes_are_gated_in_little_time_and_memory(save: Save) -> None:
    path = larger(save, "large.onnx", 25_000_000)
    measured = (
        "import resource, subprocess, sys, time\n"
        "started = time.monotonic()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-m", "edgedafl", "gate", str(path), "--max-size", "200MB"]
    done = subprocess.run([sys.executable, "-c", measured, *command], capture_output=True, text=True, check=True)
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds <= 2.0, "0.3 s on a quiet machine"
    assert kilobytes <= 120_000
