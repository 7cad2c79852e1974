"""What a run promises, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgedafl.config import GateConfig
from edgedafl.errors import UsageError
from edgedafl.files.labelled import LabelledSource
from edgedafl.pipeline.compress import _with_missed_size
from edgedafl.runs import RunDirectory
from edgedafl.stages.check_input import check_input
from edgedafl.stages.profile import _found_faithful
from edgedafl.targets import find_target
from edgedafl.teachers import TeacherOptions, load_teacher
from tests.conftest import EXAMPLE, assert_clean_failure, edgedafl

TEACHER = EXAMPLE / "teacher.onnx"
PIXELS = ["--input-mean", "0.1307", "--input-std", "0.3081"]
SHORT = ["--quick", "--threads", "1", "--device", "none", "--time-budget", "5s"]


@pytest.mark.slow
def test_a_student_that_cannot_be_faithful_ends_with_one_and_the_sentence(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = edgedafl("compress", TEACHER, *PIXELS, *SHORT, "--max-size", "9500", "--min-fidelity", "99%", "-o", run)
    assert done.code == 1, done.err
    assert done.out.startswith("Not faithful: ")
    assert "99 % asked for" in done.out and "--images" in done.out.splitlines()[0]
    verdict = json.loads((run / "run.json").read_text())["verdict"]
    assert verdict["holds"] is False and verdict["band"]["kind"] == "predicted"
    assert 0.1 < verdict["band"]["low"] < verdict["band"]["fidelity"] < 0.99
    for file in ("report.html", "student.onnx", "models/x86-64-vnni/int8.onnx"):
        assert (run / file).is_file()
    assert edgedafl("gate", run, "--min-fidelity", "99%").code == 1
    assert edgedafl("gate", run, "--min-fidelity", "10%").code == 0


@pytest.mark.parametrize(("size", "allowed"), [(521_000, 450_000), (449_000, None)])
def test_a_file_larger_than_was_asked_for_is_a_limit_that_fails(size: int, allowed: int | None) -> None:
    """An exporter's file may be larger than what was estimated of it."""
    plan = SimpleNamespace(config=SimpleNamespace(max_size=450_000))
    exported = SimpleNamespace(precision="int8", sizes={"int8": size, "fp32": 2_000_000})
    run = SimpleNamespace(record=lambda: SimpleNamespace(exported=exported))
    found = _with_missed_size(GateConfig(min_fidelity="90%"), plan, run)
    assert found is not None and (found.min_fidelity, found.max_size) == (0.9, allowed)
    missed = _with_missed_size(None, plan, run)
    assert (missed and missed.max_size) == allowed


@pytest.mark.slow
def test_pictures_are_measured_on_and_labels_say_more(tmp_path: Path) -> None:
    sample = np.load(EXAMPLE / "sample.npz")
    np.savez(tmp_path / "pictures.npz", images=sample["images"][:300, 0])
    run = tmp_path / "run"
    command = ["compress", TEACHER, *PIXELS, *SHORT, "--student", "kept:0.5", "-o", run]
    done = edgedafl(*command, "--images", tmp_path / "pictures.npz")
    assert done.code == 0, done.err
    manifest = json.loads((run / "run.json").read_text())
    band = manifest["verdict"]["band"]
    assert (band["kind"], band["images"]) == ("measured on your pictures", 60)
    assert band["fidelity"] > 0.95
    assert manifest["pictures"]["found"] == manifest["pictures"]["used"] == 300
    assert "measured on your pictures" in done.out
    labelled = edgedafl(*command, "--eval", EXAMPLE / "sample.npz", "--force")
    band = json.loads((run / "run.json").read_text())["verdict"]["band"]
    assert labelled.code == 0 and (band["kind"], band["images"]) == ("measured on labelled images", 1000)
    # A verdict speaks of the run's own target.
    assert _found_faithful(RunDirectory(run), find_target("x86")) == {"int8"}
    assert _found_faithful(RunDirectory(run), find_target("jetson")) == set()


@pytest.mark.parametrize("floor", ["nonsense", "101%", "2", "-5%"])
def test_floors_that_make_no_sense_are_refused(floor: str, tmp_path: Path) -> None:
    done = edgedafl("compress", TEACHER, f"--min-fidelity={floor}", "-o", tmp_path / "run")
    assert_clean_failure(done, 2, "share")
    assert not (tmp_path / "run").exists()


def test_a_teacher_at_chance_on_labelled_images_is_not_compressed(tmp_path: Path) -> None:
    done = edgedafl(
        "compress", TEACHER, "--input-range=200,255", "--eval", EXAMPLE / "sample.npz", "-o", tmp_path / "run"
    )
    assert done.code == 2
    assert "which is chance, fed pixels as 200 to 255" in done.err
    assert not (tmp_path / "run").exists()


def test_the_range_that_fits_the_labels_is_named() -> None:
    teacher = load_teacher(str(TEACHER), TeacherOptions(input_range=(5.0, -5.0 + 10.001)))
    with pytest.raises(UsageError, match="chance") as caught:
        check_input(teacher, LabelledSource(EXAMPLE / "sample.npz"))
    assert "--preprocess" in caught.value.hint and "fits the labels best" in caught.value.hint
    right = load_teacher(str(TEACHER), TeacherOptions(mean=(0.1307,), std=(0.3081,)))
    check_input(right, LabelledSource(EXAMPLE / "sample.npz"))


@pytest.mark.parametrize("case", ["empty", "text", "missing"])
def test_pictures_that_are_none_are_one_sentence(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    if case != "missing":
        folder.mkdir()
    if case == "text":
        (folder / "a.txt").write_text("a")
    done = edgedafl("compress", TEACHER, *PIXELS, "--images", folder, "-o", tmp_path / "run")
    assert_clean_failure(done, 2, "--images")
