"""Sweeps: a real one with two workers, its front, and going on with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgedafl.search import Space, Trial, pareto_front
from tests.conftest import assert_clean_failure, edgedafl

FLAGS = ("--input-range", "0,1", "--steps", "6", "--threads", "1")


def trial(agreement: float, size: int, latency: float, target: str = "a") -> Trial:
    return Trial("s", target, 0, agreement, size, latency, "d")


def test_the_front_is_what_nothing_beats() -> None:
    best, small, worse, equal = trial(0.9, 200, 2.0), trial(0.8, 100, 1.0), trial(0.8, 150, 1.0), trial(0.9, 200, 2.0)
    elsewhere = replace(worse, target="b")
    found = pareto_front([best, small, worse, equal, elsewhere])
    assert [t.front for t in found] == [True, True, False, True, True]


def test_a_space_is_every_combination() -> None:
    points = Space(("x", "y"), ("jetson",), (0, 1)).points()
    assert len(points) == 4
    assert points[0] == {"student": "x", "target": "jetson", "seed": 0}


@pytest.mark.slow
def test_two_workers_share_a_sweep_and_it_goes_on(tiny_onnx: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = ("search", tiny_onnx, *FLAGS, "--students", "lenet5:0.25,lenet5-half", "-o", folder, "--json", "-q")
    first = edgedafl(*arguments, "--targets", "rpi5,jetson", "--workers", "2")
    assert first.code == 0, first.err
    trials = first.json["trials"]
    assert {(t["student"], t["target"]) for t in trials} == {
        (s, t) for s in ("lenet5:0.25", "lenet5-half") for t in ("rpi5", "jetson")
    }
    assert all(0 < t["agreement"] <= 1 and t["size"] > 1000 and 0 < t["latency"] < 1 for t in trials)
    for target in ("rpi5", "jetson"):
        mine = [t for t in trials if t["target"] == target]
        assert min(mine, key=lambda t: t["size"])["front"]
        assert max(mine, key=lambda t: t["agreement"])["front"]
    assert (folder / "front.svg").read_text().startswith("<svg")
    assert json.loads((folder / "search.json").read_text())["trials"] == trials
    stamp = {p: p.stat().st_mtime_ns for p in folder.glob("trials/*/student.onnx")}
    more = edgedafl(*arguments, "--targets", "rpi5,jetson", "--seeds", "0,1", "--workers", "2")
    assert more.code == 0, more.err
    assert len(more.json["trials"]) == 8
    assert all(p.stat().st_mtime_ns == t for p, t in stamp.items())


@pytest.mark.slow
def test_a_limit_lets_optuna_choose(tiny_onnx: Path, tmp_path: Path) -> None:
    found = edgedafl(
        "search", tiny_onnx, *FLAGS, "--students", "lenet5:0.25,lenet5-half,lenet5", "--seeds", "0,1", "--target", "rpi5",
        "--trials", "2", "-o", tmp_path / "sweep", "--json", "-q",
    )  # fmt: skip
    assert found.code == 0, found.err
    assert 1 <= len(found.json["trials"]) <= 2


def test_bad_sweeps_are_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    common = ("search", tiny_onnx, *FLAGS, "--students", "lenet5-half")
    assert_clean_failure(edgedafl(*common, "-o", tmp_path / "other"), 2, "no sweep")
    assert_clean_failure(edgedafl(*common, "--seeds", "a", "-o", tmp_path / "x"), 2, "--seeds")
    assert_clean_failure(edgedafl(*common, "--targets", "moon", "-o", tmp_path / "x"), 2, "moon")
    failed = edgedafl("search", tiny_onnx, *FLAGS, "--students", "nonsense", "-o", tmp_path / "y")
    assert failed.code == 1
    assert "no student 'nonsense'" in failed.err
