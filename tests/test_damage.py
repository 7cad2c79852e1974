"""Files of ours that were damaged, and runs that come from somebody else."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedafl import pipeline
from edgedafl.errors import EdgeDaflError, UsageError
from edgedafl.export import opened_bundle
from edgedafl.files.arrays import read_arrays
from edgedafl.files.labelled_arrays import read_labelled
from edgedafl.latency import BenchOptions
from edgedafl.quantize import CalibrationSet
from edgedafl.report import compare_runs, write_report
from edgedafl.runs import RunDirectory
from edgedafl.stages import check_answers, profile_bundle
from edgedafl.targets import find_target
from edgedafl.teachers import TeacherOptions, load_teacher
from tests.conftest import exported_run


@pytest.fixture(scope="module")
def whole(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_run(tmp_path_factory.mktemp("whole") / "run", tiny_onnx, "rpi5")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def keys_of(data: Any, above: tuple[str, ...] = (), depth: int = 4) -> Iterator[tuple[str, ...]]:
    if isinstance(data, dict) and depth:
        for key, value in data.items():
            yield (*above, key)
            yield from keys_of(value, (*above, key), depth - 1)


def changed(text: str, keys: tuple[str, ...], value: Any) -> str:
    """JSON with one value replaced, or removed for None."""
    data = json.loads(text)
    place = data
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return json.dumps(data)


def read_all(path: Path) -> None:
    """What commands do with a finished run, but for what takes long."""
    run = RunDirectory(path)
    write_report(run)
    compare_runs((run, run))
    pipeline.measured_of(run)
    pipeline.export(run, target=pipeline.run_target(run), precision="int8")


def test_no_value_of_a_manifest_is_missed_without_a_sentence(run: Path) -> None:
    file, rng = run / "run.json", random.Random(0)
    text, refused = file.read_text(), 0
    for keys in keys_of(json.loads(text)):
        file.write_text(changed(text, keys, rng.choice((None, "x", [], 3))))
        try:
            read_all(run)
        except EdgeDaflError as error:
            assert error.exit_code == 2, error.message
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("text", ["", "[]", "3", '"x"', "{", '{"schema": 1, "stages": []}', '{"schema": 1}'])
def test_a_manifest_that_is_none_is_said_to_be_damaged(run: Path, text: str) -> None:
    (run / "run.json").write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        read_all(run)


def test_no_value_of_a_bundles_manifest_is_missed_without_a_sentence(run: Path) -> None:
    file = run / "bundles" / "rpi5" / "manifest.json"
    text, refused = file.read_text(), 0
    for keys in keys_of(json.loads(text)):
        for value in (None, [], 3):
            file.write_text(changed(text, keys, value))
            try:
                with opened_bundle(file.parent):
                    pass
            except EdgeDaflError as error:
                assert error.exit_code in (2, 3), error.message
                refused += 1
    assert refused > 20


def test_archives_with_a_few_wrong_bytes_are_refused_or_whole(run: Path) -> None:
    (archive,) = (run / "bundles").glob("*.tar.gz")
    blob, rng, refused = archive.read_bytes(), random.Random(0), 0
    for _ in range(40):
        wrong = bytearray(blob)
        for _ in range(3):
            wrong[rng.randrange(len(wrong))] = rng.randrange(256)
        archive.write_bytes(wrong)
        try:
            with opened_bundle(archive) as bundle:
                check_answers(bundle)
        except EdgeDaflError as error:
            assert error.exit_code == 2, error.message
            refused += 1
    assert refused > 30


def damaged_arrays(path: Path) -> Iterator[bytes]:
    blob, rng = path.read_bytes(), random.Random(1)
    yield from (b"", b"PK", blob[: len(blob) // 2], b"\x93NUMPY" + blob)
    for _ in range(60):
        wrong = bytearray(blob)
        for _ in range(6):
            wrong[rng.randrange(len(wrong))] = rng.randrange(256)
        yield bytes(wrong)


def test_damaged_arrays_are_refused_or_whole(run: Path) -> None:
    file, refused = run / "calibration.npz", 0
    for blob in damaged_arrays(file):
        file.write_bytes(blob)
        try:
            CalibrationSet.load(file)
        except UsageError:
            refused += 1
    assert refused > 50


def test_one_array_without_a_name_is_no_collection(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ValueError, match="without a name"):
        read_arrays(tmp_path / "x.npy")


def test_teachers_with_a_few_wrong_bytes_are_refused_or_whole(tiny_onnx: Path, tmp_path: Path) -> None:
    blob, rng, refused = tiny_onnx.read_bytes(), random.Random(2), 0
    path = tmp_path / "teacher.onnx"
    for _ in range(120):
        wrong = bytearray(blob)
        for _ in range(rng.choice((1, 2, 4))):
            # Names and shapes lie at both ends, weights between them.
            place = rng.randrange(2000)
            wrong[place if rng.random() < 0.5 else -1 - place] = rng.randrange(256)
        path.write_bytes(wrong)
        try:
            load_teacher(str(path), TeacherOptions(input_range=(0.0, 1.0)))
        except EdgeDaflError as error:
            assert error.exit_code in (1, 2, 5), error.message
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    "labels",
    [np.array(["a", "b"]), np.array([0.5, 1]), np.array([0, 3]), np.array([-1, 0]), np.array([np.nan, 0]), np.array(1)],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=np.zeros((2, 1, 4, 4), np.uint8), labels=labels)
    with pytest.raises(UsageError, match="do not fit"):
        read_labelled(path, (1, 4, 4), 3)


def test_labels_in_a_column_and_whole_floats_are_classes(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=np.zeros((2, 1, 4, 4), np.uint8), labels=np.array([[0.0], [2.0]]))
    assert read_labelled(path, (1, 4, 4), 3).labels.tolist() == [0, 2]


@pytest.mark.parametrize("source", ["evil:build", "{folder}/evil.pt", "https://host/v2/models/x"])
def test_a_run_of_somebody_elses_runs_no_code_and_asks_no_server(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\ndef build(): ...\n")
    (tmp_path / "evil.pt").write_bytes(b"x")
    file = run / "run.json"
    manifest = json.loads(file.read_text())
    manifest["config"] |= {"trust": True, "input_shape": [1, 16, 16], "token_env": "SECRET"}
    manifest["teacher"]["source"] = source.format(folder=tmp_path)
    file.write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="code of its own or lies on a server") as caught:
        pipeline.verify(RunDirectory(run), target=find_target("rpi5"), labelled=tmp_path / "data.npz")
    assert "--trust" in caught.value.hint
    assert not (tmp_path / "ran").exists()


def with_another_bench(bundle: Path) -> None:
    file, manifest = bundle / "bench", bundle / "manifest.json"
    file.write_text(file.read_text() + "\n# one line more\n")
    data = json.loads(manifest.read_text())
    data["files"]["bench"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(data))


def with_a_module_to_import(bundle: Path) -> None:
    (bundle / "numpy.py").write_text("raise SystemExit")


def with_a_link(bundle: Path) -> None:
    (bundle / "notes.txt").symlink_to("/etc/passwd")


@pytest.mark.parametrize("change", [with_another_bench, with_a_module_to_import, with_a_link])
def test_a_bundle_of_somebody_elses_is_not_run_unasked(
    run: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    bundle = run / "bundles" / "rpi5"
    change(bundle)
    with pytest.raises(UsageError, match="this version did not write") as caught:
        profile_bundle(bundle, "local", tmp_path / "latency.json")
    assert "--trust" in caught.value.hint
    assert not (tmp_path / "latency.json").exists()


@pytest.mark.slow
def test_a_bundle_with_another_bench_runs_where_it_is_trusted(run: Path, tmp_path: Path) -> None:
    bundle = run / "bundles" / "rpi5"
    with_another_bench(bundle)
    found = profile_bundle(bundle, "local", tmp_path / "latency.json", BenchOptions(quick=True), trust=True)
    assert found.summaries["fp32"].count >= 200
