"""Runs in trackers, read back with the trackers' own readers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgedafl.runs import RunDirectory
from edgedafl.tracking import figures_of
from tests.report.test_report import run_with

EXPECTED = {
    "size_bytes": 100_000,
    "parameters": 100_000,
    "macs": 1_000_000,
    "latency_seconds": 1e-4,
    "fidelity": 0.981,
    "synthetic_agreement": 0.8,
    "accuracy": 0.89,
    "teacher_accuracy": 0.9,
    "teacher_size_bytes": 400_000,
}
PROGRESS = [
    {"step": 1, "fraction": 0.1, "seconds": 2.0, "losses": {"distillation": 3.0}, "agreement": None,
     "images_per_second": 50.0, "queries": 9, "fidelity": 0.5},
    {"step": 2, "fraction": 0.9, "seconds": 9.0, "losses": {"distillation": 1.0}, "agreement": None,
     "images_per_second": 60.0, "queries": 18, "fidelity": 0.9},
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    made = run_with(tmp_path / "mine")
    (made.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROGRESS))
    (made.path / "report.html").write_text("<p>report</p>")
    return made


def track(run: RunDirectory, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedafl", "track", str(run.path), *flags]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=False)


def test_a_run_has_its_figures_with_units_in_their_names(run: RunDirectory) -> None:
    found = figures_of(run)
    assert found.values == pytest.approx(EXPECTED)
    assert found.kinds["fidelity"] == "predicted"
    assert "Some CPU" in found.kinds["latency_seconds"]
    assert found.settings["student"] == "kept:1"
    assert [file.name for file in found.files] == ["report.html"]


def test_dvc_gets_numbers_alone(run: RunDirectory, tmp_path: Path) -> None:
    done = track(run, "--to", "dvc", "--output", str(tmp_path / "metrics.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "metrics.json").read_text()) == pytest.approx(EXPECTED)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_reads_curves_and_figures(run: RunDirectory, tmp_path: Path) -> None:
    done = track(run, "--to", "tensorboard", "--output", str(tmp_path / "logs"))
    assert done.returncode == 0, done.stderr
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs" / "mine"))
    events.Reload()
    curve = events.Scalars("training/predicted_fidelity")
    assert [(point.step, round(point.value, 3)) for point in curve] == [(2000, 0.5), (9000, 0.9)]
    assert events.Scalars("artifact/size_bytes")[0].value == 100_000


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed")
def test_mlflow_keeps_settings_figures_curves_and_the_report(run: RunDirectory, tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    done = track(run, "--to", "mlflow", "--uri", store, "--json", MLFLOW_ALLOW_FILE_STORE="true")
    assert done.returncode == 0, done.stderr
    identity = json.loads(done.stdout)["place"]
    script = (
        "import json, mlflow, sys\n"
        "client = mlflow.MlflowClient(sys.argv[1])\n"
        "run = client.get_run(sys.argv[2])\n"
        "curve = [(m.step, m.value) for m in client.get_metric_history(sys.argv[2], 'training/predicted_fidelity')]\n"
        "files = [file.path for file in client.list_artifacts(sys.argv[2])]\n"
        "print(json.dumps([run.data.metrics, run.data.params, run.data.tags, curve, files]))\n"
    )
    read = subprocess.run(
        [sys.executable, "-c", script, store, identity],
        capture_output=True, text=True, check=True, env={**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"},
    )  # fmt: skip
    values, settings, tags, curve, files = json.loads(read.stdout.splitlines()[-1])
    assert {name: values[name] for name in EXPECTED} == pytest.approx(EXPECTED)
    assert settings["target"] == "rpi5"
    assert tags["fidelity_is"] == "predicted"
    assert curve == [[2, 0.5], [9, 0.9]]
    assert files == ["report.html"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--to", "mlflow", "--output", "x"], "MLflow keeps its runs itself"),
        (["--to", "dvc", "--uri", "x"], "--uri is for MLflow"),
    ],
)
def test_flags_of_another_tracker_are_refused(flags: list[str], words: str, run: RunDirectory) -> None:
    done = track(run, *flags)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed")
def test_a_store_that_refuses_is_one_sentence(run: RunDirectory, tmp_path: Path) -> None:
    done = track(run, "--to", "mlflow", "--uri", f"file://{tmp_path}", MLFLOW_ALLOW_FILE_STORE="false")
    assert done.returncode == 3
    assert "MLflow does not take the run" in done.stderr
    assert "Traceback" not in done.stderr
