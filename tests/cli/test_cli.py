"""The real command in a process of its own: results, exit codes, and one clear sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from edgedafl.cli.app import _COMMANDS
from edgedafl.config import read_project
from tests.conftest import EXAMPLE, LINEAR, ROOT, assert_clean_failure, edgedafl, tiny_text

TEACHER = EXAMPLE / "teacher.onnx"


def test_help_names_every_command_and_exit_code() -> None:
    result = edgedafl("--help")
    assert result.code == 0
    assert all(name in result.out for name in _COMMANDS)
    assert "130 interrupted" in " ".join(result.out.split())


GROUPS = {"device": ("add", "list", "remove", "check", "calibrate"), "bundle": ("verify",)}


@pytest.mark.parametrize(
    "name", [f"{n} {s}" for n, subs in GROUPS.items() for s in subs] + [n for n in _COMMANDS if n not in GROUPS]
)
def test_every_command_has_help_and_json(name: str) -> None:
    result = edgedafl(*name.split(), "--help")
    assert result.code == 0
    assert "--json" in result.out


def test_help_and_import_do_not_load_torch() -> None:
    code = "import sys, edgedafl; import edgedafl.cli; assert not {'torch', 'onnxruntime', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_a_matter_of_the_environment(tmp_path: Path) -> None:
    result = edgedafl("compress", TEACHER, "-o", tmp_path / "run", "--accelerator", "cuda")
    assert_clean_failure(result, 3, "no CUDA device", "--accelerator cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments", [["compres"], ["targets", "jetsn"], ["compress"], ["compress", "x", "--no-such-flag"]]
)
def test_wrong_words_are_usage_errors(arguments: list[str]) -> None:
    assert edgedafl(*arguments).code == 2


def test_near_names_are_offered() -> None:
    assert "Did you mean 'compress'?" in edgedafl("compres").err
    result = edgedafl("targets", "jetsn")
    assert_clean_failure(result, 2, "jetson")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--target", "jetsn"], ["no target 'jetsn'", "jetson"]),
        (["--student", "resnet21"], ["no student 'resnet21'", "resnet20"]),
        (["--student", "prund"], ["no student 'prund'", "Did you mean pruned"]),
        (["--max-size", "1KB"], ["No student fits", "smallest student"]),
        (["--max-size", "big"], ["'big'", "500KB"]),
        (["--weight-bits", "3"], ["weight_bits = 3", "greater than or equal to 3.5"]),
        (["--weight-bits", "few"], ["'few'", "--weight-bits"]),
        (["--weight-bits", "5", "--target", "jetson"], ["jetson-orin-nano has weights of at least 8 bits"]),
        (["--weight-bits", "5", "--precision", "fp16"], ["weights of fp16"]),
        (["--student", "kept:1", "--max-size", "20KB"], ["kept:1 takes about", "--max-size is 20 kB"]),
        (["--time-budget", "5y"], ["unknown unit 'y'"]),
        (["--input-mean", "a"], ["not a list of numbers"]),
        (["--input-std", "0"], ["must be above 0"]),
        (["--input-range", "1,0"], ["is empty"]),
        (["--input-shape", "3,32"], ["takes 3 numbers"]),
        (["--input-shape", "3,32,32"], ["does not fit --input-shape"]),
        (["--preset", "slow"], ["preset"]),
        (["--output-name", "x"], ["no output 'x'"]),
        (["--seed", "-1"], ["seed"]),
        (["--config", "none.toml"], ["cannot be read"]),
        (["--method", "fastest"], ["method"]),
        (["--method", "fast"], ["needs the statistics of BatchNorm", "without folding"]),
        (["--access", "labels", "--method", "adversarial"], ["gives labels only"]),
        (["--access", "labels", "--method", "zeroth-order"], ["needs scores"]),
        (["--pool-memory", "10XB"], ["'10XB'"]),
        (["--accelerator", "tpu"], ["accelerator"]),
    ],
)
def test_bad_flags_of_compress(flags: list[str], words: list[str], tmp_path: Path) -> None:
    result = edgedafl("compress", TEACHER, "-o", tmp_path / "run", *flags, cwd=tmp_path)
    assert_clean_failure(result, 2, *words)
    assert not (tmp_path / "run").exists()


def test_bad_models(save: Callable[..., Path], tmp_path: Path) -> None:
    assert_clean_failure(edgedafl("inspect", tmp_path / "none.onnx"), 2, "does not exist")
    empty = tmp_path / "empty.onnx"
    empty.touch()
    assert_clean_failure(edgedafl("inspect", empty), 5, "empty")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(TEACHER.read_bytes()[:100_000])
    assert_clean_failure(edgedafl("compress", cut, "-o", tmp_path / "run"), 5, "cut.onnx")
    unknown = save(tiny_text("f = NonZero(image) g = Cast<to=1>(f) scores = Gemm<transB=1>(g, w, b)"))
    assert_clean_failure(edgedafl("inspect", unknown), 5, "NonZero 'f'")
    assert not (tmp_path / "run").exists()


def test_errors_are_json_on_request(tmp_path: Path) -> None:
    result = edgedafl("inspect", tmp_path / "none.onnx", "--json")
    assert result.code == 2
    assert result.json["exit_code"] == 2


def test_inspect_says_what_the_teacher_is() -> None:
    result = edgedafl("inspect", TEACHER, "--json", "--input-mean", "0.1307", "--input-std", "0.3081")
    assert result.code == 0
    teacher = result.json["teacher"]
    assert (teacher["num_classes"], teacher["access"], teacher["parameters"]) == (10, "gradient", 61_706)
    assert result.json["preflight"]["classes_seen"] >= 5


def test_students_that_cannot_be_cut_out_of_the_teacher_are_said_so(tiny_onnx: Path, tmp_path: Path) -> None:
    run = ["distill", tiny_onnx, "-o", tmp_path / "run", "--input-range", "0,1", "--steps", "1"]
    assert_clean_failure(edgedafl(*run, "--student", "pruned:2"), 2, "'2'", "pruned:0.5")
    scores = edgedafl(*run, "--student", "pruned:0.5", "--access", "scores")
    assert_clean_failure(scores, 5, "cuts channels out of the teacher", "scores only", "--student auto")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_ignores_its_input_is_reported_at_once(save: Callable[..., Path], tmp_path: Path) -> None:
    # Saturated by pixels of 0..255, it answers one thing to everything.
    model = tiny_text(LINEAR)
    model.graph.initializer[0].raw_data = (onnx.numpy_helper.to_array(model.graph.initializer[0]) * 0).tobytes()
    result = edgedafl("compress", save(model), "-o", tmp_path / "run")
    assert_clean_failure(result, 2, "same answer to every image", "--input-range")


def test_a_dry_run_looks_at_the_teacher_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "edgedafl.toml").write_text("[compress]\ntarget = 'rpi4'\npreset = 'quick'\n")
    flags = ("--dry-run", "--max-size", "1.5MB", "--input-mean", "0.1307", "--input-std", "0.3081")
    found = edgedafl("compress", TEACHER, *flags, "--json", cwd=tmp_path).json
    config = found["config"]
    assert (config["target"], config["seconds"], config["max_size"]) == ("rpi4", 60, 1_500_000)
    assert (found["target"], found["precision"], found["teacher"]["num_classes"]) == ("rpi4", "int8", 10)
    assert [c["name"] for c in found["candidates"]] == [found["student"]["name"]]
    assert found["candidates"][0]["size"] <= 1_500_000
    text = edgedafl("compress", TEACHER, *flags, cwd=tmp_path)
    assert "fidelity untrained" in text.out and "Would write runs/teacher-rpi4" in text.out
    assert [path.name for path in tmp_path.iterdir()] == ["edgedafl.toml"]


def test_gate_on_any_onnx_file(tmp_path: Path) -> None:
    result = edgedafl("gate", TEACHER, "--max-size", "1MB", "--max-macs", "1000000")
    assert (result.code, "all 2 limits hold" in result.out) == (0, True)
    result = edgedafl("gate", TEACHER, "--max-parameters", "50000")
    assert result.code == 1
    assert "exceeded by 11.7 k" in result.out
    assert_clean_failure(edgedafl("gate", TEACHER, cwd=tmp_path), 2, "no limit")
    assert_clean_failure(edgedafl("gate", tmp_path / "none"), 2, "does not exist")


def test_gate_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "edgedafl.toml").write_text("[gate]\n\nmax_size = '1KB'\n")
    result = edgedafl("gate", TEACHER, cwd=tmp_path)
    assert result.code == 1
    assert f"{tmp_path / 'edgedafl.toml'}:3" in result.out


def test_targets_doctor_init_completion(tmp_path: Path) -> None:
    assert {t["name"] for t in edgedafl("targets", "--json").json} >= {
        "jetson-orin-nano",
        "rpi5",
        "android-arm64",
        "x86-64-vnni",
    }
    assert edgedafl("targets", "jetson", "--json").json["scheme"]["remainder"] == "float16"
    doctor = edgedafl("doctor", "--json")
    assert doctor.code == 0
    assert (
        next(f for f in doctor.json if f["name"] == "exporters")["detail"]
        == "executorch, litert, onnx, openvino, ort, tensorrt"
    )
    assert edgedafl("init", cwd=tmp_path).code == 0
    assert read_project(tmp_path / "edgedafl.toml").compress["target"] == "jetson"
    assert_clean_failure(edgedafl("init", cwd=tmp_path), 2, "exists already")
    assert "_EDGEDAFL_COMPLETE" in edgedafl("completion", "bash").out


def test_no_run_directory(tmp_path: Path) -> None:
    for command in ("report", "quantize", "export", "profile", "verify"):
        assert_clean_failure(edgedafl(command, tmp_path), 2, "not a run directory")
    (tmp_path / "run.json").write_text("{")
    assert_clean_failure(edgedafl("report", tmp_path), 2, "damaged")


def test_a_full_or_closed_disk_is_an_environment_error(tiny_onnx: Path, tmp_path: Path) -> None:
    assert_clean_failure(edgedafl("distill", tiny_onnx, "-o", "/proc/run", "--steps", "1"), 3, "/proc/run")
    (tmp_path / "file").write_text("x")
    assert_clean_failure(
        edgedafl("distill", tiny_onnx, "-o", tmp_path / "file" / "run", "--steps", "1"), 3, "cannot be used"
    )


def test_other_peoples_folders_are_not_overwritten(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    assert_clean_failure(edgedafl("distill", tiny_onnx, "-o", tmp_path, "--steps", "1"), 2, "not empty")


def interrupt(path: Path, output: Path, how: signal.Signals = signal.SIGINT) -> subprocess.CompletedProcess[str]:
    """Start a long run, wait for its first metrics, press Ctrl-C."""
    command = [
        sys.executable,
        "-m",
        "edgedafl",
        "distill",
        str(path),
        "-o",
        str(output),
        "--time-budget",
        "60s",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (output / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    in_use = edgedafl("distill", path, "-o", output, "--time-budget", "60s", "--threads", "1")
    assert_clean_failure(in_use, 2, "in use by another process")
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_ctrl_c_saves_the_state_and_resume_goes_on(tiny_onnx: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    stopped = interrupt(tiny_onnx, output)
    assert stopped.returncode == 130, stopped.stderr
    assert "--resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert (output / "checkpoint" / "state.pt").exists()
    same = ["distill", tiny_onnx, "-o", output, "--time-budget", "60s", "--threads", "1"]
    assert_clean_failure(edgedafl(*same), 2, "unfinished run", "--resume")
    before = len((output / "metrics.jsonl").read_text().splitlines())
    process = subprocess.Popen(
        [sys.executable, "-m", "edgedafl", *map(str, same), "--resume"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len((output / "metrics.jsonl").read_text().splitlines()) < before + 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(2)
    process.communicate(timeout=60)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert len(rows) >= before + 2
    assert steps == sorted(steps)
    assert rows[-1]["seconds"] > rows[before - 1]["seconds"]


def test_a_request_to_stop_saves_the_state_too(tiny_onnx: Path, tmp_path: Path) -> None:
    stopped = interrupt(tiny_onnx, tmp_path / "run", signal.SIGTERM)
    assert stopped.returncode == 130, stopped.stderr
    assert "--resume" in stopped.stderr
    assert (tmp_path / "run" / "checkpoint" / "state.pt").exists()


def test_resume_needs_something_to_resume(tiny_onnx: Path, tmp_path: Path) -> None:
    result = edgedafl("distill", tiny_onnx, "-o", tmp_path / "new", "--steps", "1", "--resume")
    assert_clean_failure(result, 2, "nothing to resume")


def test_terminals_without_a_character_get_another(tmp_path: Path) -> None:
    """The table of the gate's sizes and the targets hold none; a latency has a unit that ASCII lacks."""
    (tmp_path / "edgedafl.toml").write_text("[gate]\nmax_size = '1MB'\n")
    code = "import sys; from edgedafl.cli.app import main; sys.argv[1:] = ['gate', sys.argv[1]]; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    name = tmp_path / "gr\u00f6\u00dfe.onnx"
    name.write_bytes(TEACHER.read_bytes())
    command = [sys.executable, "-c", code, str(name)]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout and b"the limit holds" in done.stdout


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("utf-8-sig", ""), ("utf-16", "is in UTF-16; TOML is UTF-8"), ("latin-1", "is in another encoding")],
)
@pytest.mark.parametrize("name", ["edgedafl.toml", "pyproject.toml"])
def test_settings_are_read_as_other_systems_write_them(tmp_path: Path, encoding: str, words: str, name: str) -> None:
    table = "[gate]" if name == "edgedafl.toml" else "[tool.edgedafl.gate]"
    text = f"# gr\u00f6\u00dfe\r\n{table}\r\nmax_size = '1KB'\r\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    result = edgedafl("gate", TEACHER, cwd=tmp_path)
    if words:
        assert_clean_failure(result, 2, words)
    else:
        assert (result.code, "limit 1 kB" in result.out) == (1, True), result.out


def test_nothing_is_left_in_the_users_home(tmp_path: Path) -> None:
    result = edgedafl("inspect", TEACHER, environment={"HOME": str(tmp_path), "XDG_CACHE_HOME": ""})
    assert result.code == 0, result.err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_package_that_is_not_installed_is_named(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('No module named onnx', name='onnx')")
    without = edgedafl("inspect", tiny_onnx, environment={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert_clean_failure(without, 3, "The package 'onnx' is not installed", "pip install edgedafl")
