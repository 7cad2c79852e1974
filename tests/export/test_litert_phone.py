"""Phones without Python: a shell script drives LiteRT's own benchmark_model.

That program cannot be had here. A stand-in takes its place: it understands the same flags and prints the lines that
benchmark_model prints (form and figures recorded from public logs of it), and its answers are the expected ones, or,
where LiteRT is installed, those of LiteRT's interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edgedafl.devices import DeviceFacts, facts_script
from edgedafl.devices.check import check_device
from edgedafl.devices.local import LocalDevice
from edgedafl.devices.remote_run import run_bundle
from edgedafl.errors import MeasurementError
from edgedafl.export import Artifacts, Bundle, find_exporter
from edgedafl.latency.figure import read_measurement
from edgedafl.preprocess import Preprocess
from edgedafl.stages import profile_bundle
from edgedafl.targets import find_target
from edgedafl_exporters.contents import template
from edgedafl_exporters.litert_phone import phone_files
from tests.export.test_litert import SHAPE, graphs

RECORDED = """INFO: STARTING!
INFO: Graph: [model.int8.tflite]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 12.75ms.
INFO: Running benchmark for at least 2 iterations and at least 0.1 seconds but terminate if exceeding 120 seconds.
INFO: count=37 first=14744 curr=15520 min=13164 max=18295 avg=13764.3 std=967

INFO: Running benchmark for at least 16 iterations and at least 0 seconds but terminate if exceeding 120 seconds.
INFO: count=16 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470 p5=13105 median=13500 p95=15765

INFO: Inference timings in us: Init: 12750, First inference: 14744, Warmup (avg): 13764.3, Inference (avg): 13520.2
"""
OLDER = (
    "count=1 curr=3512391\n\ncount=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798\n"
)
SCORES = np.array([[0.5, 2.0, -1.0], [1.5, 0.0, -0.5]], np.float32)
ENDS = {
    "fp32": {
        "input": {"name": "t0", "dtype": "float32", "shape": [1, 2, 2, 1], "scale": 0.0, "zero_point": 0},
        "output": {"name": "t1", "dtype": "float32", "scale": 0.0, "zero_point": 0},
    },
    "int8": {
        "input": {"name": "t0", "dtype": "uint8", "shape": [1, 2, 2, 1], "scale": 1.0, "zero_point": 0},
        "output": {"name": "t1", "dtype": "uint8", "scale": 0.5, "zero_point": 100},
    },
}


def stand_in(folder: Path, prints: str, answers: Mapping[str, bytes]) -> dict[str, str]:
    """A program that answers by model and image, and the environment in which it is found."""
    (folder / "prints.txt").write_text(prints)
    for name, content in answers.items():
        (folder / name).write_bytes(content)
    program = folder / "benchmark_model"
    program.write_text(
        '#!/bin/sh\nfor word in "$@"; do case "$word" in\n'
        "  --graph=*) graph=${word#*=} ;;\n"
        "  --input_layer_value_files=*) given=${word#*:} ;;\n"
        "  --output_filepath=*) answer=${word#*=} ;;\nesac; done\n"
        f'here={folder}\n[ -z "${{answer:-}}" ] || cp "$here/$(basename $graph).$(basename $given)" "$answer" 2>/dev/null\n'
        'cat "$here/prints.txt"\n'
    )
    program.chmod(0o755)
    return {**os.environ, "BENCHMARK_MODEL": str(program)}


def raw_answers(scores: np.ndarray) -> dict[str, bytes]:
    """What benchmark_model writes: the output tensor's bytes."""
    found = {}
    for index, row in enumerate(scores):
        found[f"model.fp32.tflite.input_{index}.float32.bin"] = row.astype("<f4").tobytes()
        found[f"model.int8.tflite.input_{index}.uint8.bin"] = (np.round(row / 0.5) + 100).astype(np.uint8).tobytes()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle's folder with what the script reads."""
    place = tmp_path / "bundle"
    place.mkdir()
    pixels = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    files = phone_files(pixels, {"fp32": SCORES, "int8": SCORES}, ENDS)
    for name, content in files.items():
        (place / name).write_bytes(content)
    (place / "bench.sh").write_text(template("bench_litert.sh"))
    (place / "facts.sh").write_text(facts_script())
    (place / "manifest.json").write_text('{\n "target": "android-litert",\n "student": "kept:1"\n}')
    return place


def bench(folder: Path, env: Mapping[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "bench.sh", "--threads", "1", *flags], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_recorded_times_become_a_measurement(folder: Path, tmp_path: Path) -> None:
    done = bench(folder, stand_in(tmp_path, RECORDED, raw_answers(SCORES)), "--quick")
    assert done.returncode == 0, done.stderr
    found = read_measurement(folder / "latency.json", "phone")
    assert found.summaries["int8"].median == found.summaries["fp32"].median == 13_520_200
    assert found.summaries["int8"].count == 16 and found.summaries["int8"].p90 is None
    assert found.timed == "mean of 16 calls of benchmark_model"
    assert {kind: check.passed for kind, check in found.checks.items()} == {"fp32": True, "int8": True}
    assert found.checks["int8"].relative_error == 0 and found.checks["int8"].same_class == 1
    assert found.quick and found.environment.provider == "benchmark_model"


def test_older_programs_without_answers_are_timed_and_that_is_said(folder: Path, tmp_path: Path) -> None:
    done = bench(folder, stand_in(tmp_path, OLDER, {}), "--quick")
    assert done.returncode == 0 and "they were not checked" in done.stderr
    found = read_measurement(folder / "latency.json", "phone")
    assert found.summaries["int8"].median == 2_950_340_000 and found.checks == {}


def test_other_answers_fail(folder: Path, tmp_path: Path) -> None:
    done = bench(folder, stand_in(tmp_path, RECORDED, raw_answers(SCORES[::-1])), "--quick")
    assert done.returncode == 1
    found = read_measurement(folder / "latency.json", "phone")
    assert not found.checks["int8"].passed and found.checks["int8"].same_class == 0
    assert any("int8 answers differ" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("flag", "code", "said"),
    [("--mlperf", 2, "means alone"), ("--layers", 2, "means alone"), ("--fast", 2, "unknown option --fast")],
)
def test_what_the_program_cannot_do_is_said(folder: Path, tmp_path: Path, flag: str, code: int, said: str) -> None:
    done = bench(folder, stand_in(tmp_path, RECORDED, {}), flag)
    assert (done.returncode, said in done.stderr) == (code, True)


def test_a_program_that_prints_no_times_is_a_failure(folder: Path, tmp_path: Path) -> None:
    done = bench(folder, stand_in(tmp_path, "INFO: STARTING!\n", {}), "--quick")
    assert done.returncode == 4 and "printed no times" in done.stderr


def test_without_python_and_program_the_remedy_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (folder / "bench").write_text("#!/usr/bin/env python3\n")
    device = LocalDevice()
    device.python = "no-such-python"
    with pytest.raises(MeasurementError, match="neither Python nor benchmark_model here: get LiteRT's"):
        run_bundle(device, folder, ["--quick"], tmp_path / "latency.json", timeout=60)


def test_check_asks_for_python_or_the_program() -> None:
    device, target = LocalDevice(), find_target("android-litert")
    known = {"machine": "aarch64", "free_kb": "900000"}

    def found(**facts: str) -> dict[str, bool | None]:
        return {f.name: f.ok for f in check_device(DeviceFacts({**known, **facts}), device, target)}

    assert found()["benchmark_model"] is False
    assert found(benchmark_model="/data/local/tmp/benchmark_model")["benchmark_model"] is True
    assert found(python="3.12", numpy="2.0")["ai_edge_litert"] is False


installed = pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is None,
    reason="LiteRT is not installed: pip install 'edgedafl[litert]'",
)
INTERPRETER = '''#!{python}
"""benchmark_model's flags, answered by LiteRT's interpreter."""
import sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
model = Interpreter(flags["graph"], num_threads=int(flags["num_threads"]))
model.allocate_tensors()
(given,), (made,) = model.get_input_details(), model.get_output_details()
value = np.zeros(given["shape"], given["dtype"])
if "input_layer_value_files" in flags:
    name, _, file = flags["input_layer_value_files"].partition(":")
    assert name == given["name"] and flags["input_layer_shape"] == ",".join(str(side) for side in given["shape"])
    value = np.fromfile(file, given["dtype"]).reshape(given["shape"])
model.set_tensor(given["index"], value)
times = []
for _ in range(int(flags["num_runs"])):
    begun = time.perf_counter_ns()
    model.invoke()
    times.append((time.perf_counter_ns() - begun) / 1000)
if len(times) > 1:
    print(f"count={{len(times)}} first={{times[0]:.0f}} curr={{times[-1]:.0f}} avg={{np.mean(times):.6g}} std=1")
if "output_filepath" in flags:
    model.get_tensor(made["index"]).tofile(flags["output_filepath"])
'''


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    fixed, integer, _ = graphs()
    pixels = np.random.default_rng(1).integers(0, 256, (24, *SHAPE), dtype=np.uint8)
    preprocess = Preprocess.from_range(-1.0, 1.0, channels=3)
    images = (pixels / 127.5 - 1).astype(np.float32)
    artifacts = Artifacts(
        {"fp32": fixed, "int8": integer}, "int8", "resnet8", preprocess.to_dict(), images[:4], calibration=images,
        provenance={"teacher_sha256": ""},
    )  # fmt: skip
    place = tmp_path_factory.mktemp("phone") / "bundle"
    return find_exporter("litert").export(artifacts, find_target("android-litert"), place)


@installed
@pytest.mark.slow
def test_a_real_bundle_is_run_without_python(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "benchmark_model"
    program.write_text(INTERPRETER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("BENCHMARK_MODEL", str(program))
    device = LocalDevice()
    device.python = "no-such-python"
    done = run_bundle(device, bundle.directory, ["--quick"], tmp_path / "latency.json", timeout=300)
    assert done.code == 0, done.log
    found = read_measurement(done.result, "phone")
    assert {kind: check.passed for kind, check in found.checks.items()} == {"fp32": True, "int8": True}
    assert found.checks["int8"].same_class == 1 and found.summaries["int8"].count == 16


@installed
@pytest.mark.slow
def test_profile_takes_the_bundle_as_it_was_written(bundle: Bundle, tmp_path: Path) -> None:
    """Models that LiteRT loads are data: nothing has to be trusted."""
    from edgedafl.latency import BenchOptions

    found = profile_bundle(bundle.directory, "local", tmp_path / "latency.json", BenchOptions(quick=True))
    assert found.checks["int8"].passed and found.environment.runtime
    assert json.loads((tmp_path / "latency.json").read_text())["samples_ns"]["int8"]
