"""Sweeps: a real one with two workers, its front, and going on with it."""

from __future__ import annotations

import json
import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgedafl.search import Space, Trial, pareto_front
from edgedafl.search.study import Study
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


def take_one_and_wait(folder: Path, space: Space, taken: multiprocessing.Queue) -> None:
    study = Study(folder)
    with study.worker() as worker:
        taken.put(study.take(worker, space, limit=2).user_attrs["point"])
        threading.Event().wait()


def test_a_second_sweep_leaves_running_trials_alone_and_takes_those_of_a_killed_worker(tmp_path: Path) -> None:
    space = Space(("x", "y"), ("jetson",), (0,))
    study = Study(tmp_path)
    study.enqueue(space)
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    other = context.Process(target=take_one_and_wait, args=(tmp_path, space, taken))
    other.start()
    its = taken.get(timeout=60)
    study.enqueue(space)
    with study.worker() as worker:
        mine = study.take(worker, space, limit=2)
        assert sorted([its["student"], mine.user_attrs["point"]["student"]]) == ["x", "y"]
        assert study.take(worker, space, limit=2) is None
        other.kill()
        other.join()
        study.enqueue(space)
        again = study.take(worker, space, limit=2)
        assert again is not None and again.user_attrs["point"] == its
        study.finish(mine, {"number": 1}, (0.9, 100, 0.1))
        study.fail(again, "no such student")
    assert study.results() == [{"number": 1}]
    assert study.failures() == [(its, "no such student")]
    assert list((tmp_path / "workers").iterdir()) == []


def test_what_is_waiting_keeps_its_combination_in_a_larger_sweep(tmp_path: Path) -> None:
    small, large = Space(("x",), ("jetson",), (0,)), Space(("x", "y", "z"), ("jetson",), (0,))
    study = Study(tmp_path)
    study.enqueue(small)
    study.enqueue(large)
    with study.worker() as worker:
        points = []
        while (trial := study.take(worker, large, limit=3)) is not None:
            points.append(trial.user_attrs["point"])
    assert points == large.points()


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
    assert_clean_failure(edgedafl(*common, "-o", tmp_path / "other"), 2, "not a sweep")
    assert_clean_failure(edgedafl(*common, "--seeds", "a", "-o", tmp_path / "x"), 2, "--seeds")
    assert_clean_failure(edgedafl(*common, "--targets", "moon", "-o", tmp_path / "x"), 2, "moon")
    failed = edgedafl("search", tiny_onnx, *FLAGS, "--students", "nonsense", "-o", tmp_path / "y")
    assert failed.code == 1
    assert "no student 'nonsense'" in failed.err
