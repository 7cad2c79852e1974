"""Jetson models are accepted and built by TensorRT-RTX, and the scripts drive trtexec rightly."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from edgedafl.errors import CheckFailedError
from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.half import to_half
from edgedafl.latency import read_measurement
from edgedafl.preprocess import Preprocess
from edgedafl.quantize import CalibrationSet, observe_activations, quantize_graph
from edgedafl.stages import pruner_of
from edgedafl.stages.graphs import for_target
from edgedafl.students import ARCHITECTURES, build_student
from edgedafl.targets import find_target
from edgedafl.teachers import TeacherOptions, load_onnx_teacher
from edgedafl_exporters.tensorrt import TensorRtExporter
from edgedafl_exporters.tensorrt_steps import PACKAGES, _samples
from tests.conftest import export, exported_run

# Every architecture there is; a new one is built too.
STUDENTS = {
    name: (1, 32, 32) if name.startswith("lenet") else (3, 32, 32) for name in ARCHITECTURES if name != "resnet18"
} | {"resnet18:0.25": (3, 32, 32), "convnet:0.5": (3, 64, 64), "pruned:0.5": (3, 32, 32)}
PRECISIONS = ("int8", "fp16")


def has_rtx() -> bool:
    return any(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"))


def module_of(name: str, shape: tuple[int, int, int], folder: Path) -> nn.Module:
    """An architecture, or half of an exported residual network."""
    if not name.startswith("pruned"):
        return build_student(name, shape, 10).module
    whole = export(build_student("resnet20", shape, 10).module, folder / "whole.onnx", shape)
    return pruner_of(load_onnx_teacher(whole, TeacherOptions(input_range=(0.0, 1.0)))).student("pruned:0.5").module


@pytest.fixture(scope="module")
def jetson_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import numpy as np

    folder = tmp_path_factory.mktemp("jetson")
    target = find_target("jetson")
    random = np.random.default_rng(0)
    models = {}
    for name, shape in STUDENTS.items():
        student = student_to_onnx(module_of(name, shape, folder), shape)
        pixels = random.integers(0, 256, (32, *shape), dtype=np.uint8)
        calibration = CalibrationSet(pixels, pixels, np.zeros(32, np.int64), Preprocess.from_range(0, 1, shape[0]))
        ready = fix_batch(for_target(student, target), 1)
        graphs = {
            "int8": quantize_graph(ready, target.scheme, observe_activations(ready, calibration.images()), "min-max"),
            "fp16": to_half(ready),
        }
        for precision, model in graphs.items():
            models[f"{name}.{precision}"] = folder / f"{name.replace(':', '-')}.{precision}.onnx"
            models[f"{name}.{precision}"].write_bytes(model.SerializeToString())
    return models


@pytest.mark.slow
@pytest.mark.skipif(not has_rtx(), reason="TensorRT-RTX is not installed (tensorrt-rtx-cu13-libs and -bindings)")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", list(STUDENTS))
def test_tensorrt_rtx_builds_the_jetson_model(name: str, precision: str, jetson_models: dict[str, Path]) -> None:
    found = TensorRtExporter().try_build(jetson_models[f"{name}.{precision}"])
    assert found["plan_bytes"] > 10_000
    assert found["layers"]["CONVOLUTION"] >= 2
    assert ("DEQUANTIZE" in found["layers"]) == (precision == "int8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.skipif(not any(importlib.util.find_spec(name) for name in PACKAGES), reason="TensorRT is not installed")
def test_what_tensorrt_builds_is_timed_on_a_gpu(jetson_models: dict[str, Path]) -> None:
    found = TensorRtExporter().try_build(jetson_models["resnet8.fp16"])
    assert 0.001 < found["latency_ms"] < 100
    assert found["samples"] >= 200
    assert found["gpu"] == torch.cuda.get_device_name()


def test_samples_are_taken_after_a_warm_up_and_long_enough() -> None:
    calls = []
    samples = _samples(lambda: calls.append(1) or time.sleep(0.001), warm_up=0.02, seconds=0.03, count=5)
    assert len(samples) >= 5 and sum(samples) > 0.025e9
    assert len(calls) >= len(samples) + 5
    assert len(_samples(lambda: None, warm_up=0.0, seconds=0.0, count=7)) == 7


@pytest.mark.slow
@pytest.mark.skipif(not has_rtx(), reason="TensorRT-RTX is not installed (tensorrt-rtx-cu13-libs and -bindings)")
def test_what_tensorrt_refuses_is_said(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"not a model")
    with pytest.raises(CheckFailedError, match=r"does not take wrong\.onnx"):
        TensorRtExporter().try_build(wrong)


# A stand-in, not TensorRT: it refuses flags that its version does not have, and answers with the
# expected logits so that the scripts' own arithmetic is what is tested.
TRTEXEC = r"""#!/bin/sh
[ "$1" = --help ] && { echo "&&&& RUNNING TensorRT.trtexec [TensorRT v@VERSION@] # trtexec"; exit 0; }
for flag in "$@"; do
    case "$flag" in
        --fp16|--int8|--best|--workspace*|--calib*) echo "precision flag $flag" >&2; exit 9 ;;
        --stronglyTyped) [ @VERSION@ -lt 110000 ] || { echo "unknown $flag" >&2; exit 9; } ;;
        --saveEngine=*) echo plan > "${flag#*=}" ;;
        --loadInputs=*) input="${flag#*:}" ;;
        --exportOutput=*) output="${flag#*=}" ;;
        --exportTimes=*) times="${flag#*=}" ;;
        --loadEngine=*) engine="${flag#*=}"; [ -e "$engine" ] || exit 8 ;;
        --onnx=*) [ -e "${flag#*=}" ] || exit 7 ;;
    esac
done
echo "$@" >> calls.log
if [ -n "${output:-}" ]; then
    index="${input#input_}" precision="${engine#model.}"
    list="$(paste -sd, "expected_${index%.bin}.${precision%.plan}.txt")"
    printf '[\n  { "name" : "logits"\n  , "dimensions" : "1x3"\n  , "values" : [ %s ]\n  }\n]\n' "$list" > "$output"
fi
if [ -n "${times:-}" ]; then
    { printf '[\n'; i=0; while [ $i -lt 700 ]; do
        [ $i -gt 0 ] && printf ',\n'
        printf '  { "startInMs" : %d, "endInMs" : %d, "h2dMs" : 0.01, "computeMs" : 0.1, "latencyMs" : 0.12%d }' $i $i $((i % 10))
        i=$((i + 1)); done; printf '\n]\n'; } > "$times"
fi
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path) -> Path:
    run = exported_run(tmp_path_factory.mktemp("trt") / "run", tiny_onnx, "jetson")
    return run / "bundles" / "jetson-orin-nano"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["100300", "110400"])
def test_scripts_drive_trtexec_without_precision_flags(version: str, bundle: Path, tmp_path: Path) -> None:
    import os
    import shutil

    place = tmp_path / "bundle"
    shutil.copytree(bundle, place)
    trtexec = tmp_path / "trtexec"
    trtexec.write_text(TRTEXEC.replace("@VERSION@", version))
    trtexec.chmod(0o755)
    environment = {**os.environ, "TRTEXEC": str(trtexec)}
    done = subprocess.run(
        [str(place / "bench"), "--output", "latency.json"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((place / "latency.json").read_text())
    assert set(found["samples_ns"]) == {"fp16", "int8"}
    assert [len(v) for v in found["samples_ns"].values()] == [2100, 2100]
    assert found["process_samples"] == {"fp16": [700, 700, 700], "int8": [700, 700, 700]}
    assert found["environment"]["facts"]["machine"]
    measured = read_measurement(place / "latency.json", "orin")
    assert measured.summaries["int8"].minimum == 120_000
    assert min(found["samples_ns"]["int8"]) == 120_000
    assert all(check["passed"] and check["relative_error"] == 0 for check in found["checks"].values())
    calls = (place / "calls.log").read_text()
    builds = [line for line in calls.splitlines() if "--onnx" in line]
    assert len(builds) == 2
    assert all(("--stronglyTyped" in line) == (version == "100300") for line in builds)
    assert all("--timingCacheFile=timing.cache" in line for line in builds)


@pytest.mark.slow
def test_scripts_say_what_is_missing(bundle: Path, tmp_path: Path) -> None:
    import os
    import shutil

    place = tmp_path / "bundle"
    shutil.copytree(bundle, place)
    bare = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(place / "build.sh")], capture_output=True, text=True, env=bare, check=False)
    assert (done.returncode, "trtexec was not found" in done.stderr) == (3, True)
    old = tmp_path / "trtexec"
    old.write_text(TRTEXEC.replace("@VERSION@", "80501"))
    old.chmod(0o755)
    done = subprocess.run(
        [str(place / "build.sh")], capture_output=True, text=True, env={**os.environ, "TRTEXEC": str(old)}, check=False
    )
    assert (done.returncode, "needs 10.3 or newer" in done.stderr) == (3, True)
