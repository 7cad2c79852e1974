"""LiteRT files: floats as ONNX Runtime's, integers throughout, and what a device and a C program need."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgedafl.errors import EnvironmentMissingError
from edgedafl.export import Artifacts, Bundle, find_exporter, student_to_onnx
from edgedafl.graph.dequantize import without_integers
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.parity import compare
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import Preprocess
from edgedafl.quantize import integer_model
from edgedafl.stages.graphs import for_target
from edgedafl.students import build_student
from edgedafl.targets import find_target
from edgedafl_exporters.c_array import c_array_files
from tests.conftest import edgedafl

SHAPE = (3, 32, 32)
installed = pytest.mark.skipif(
    importlib.util.find_spec("litert_torch") is None, reason="LiteRT is not installed: pip install 'edgedafl[litert]'"
)


def graphs(
    name: str = "resnet8", target: str = "android-litert"
) -> tuple[onnx.ModelProto, onnx.ModelProto, np.ndarray]:
    """A float student, its integers, and images."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(24, *SHAPE)).astype(np.float32)
    student = student_to_onnx(build_student(name, SHAPE, 10).module.eval(), SHAPE)
    fixed = fix_batch(for_target(student, find_target(target)), 1)
    return fixed, integer_model(fixed, find_target(target).scheme, images, images), images


def test_rounded_weights_as_floats_answer_nearly_as_the_integers() -> None:
    fixed, integer, images = graphs()
    plain = without_integers(integer)
    assert not {n.op_type for n in plain.graph.node} & {"QuantizeLinear", "DequantizeLinear", "Cast"}
    scores = [run_batched(open_session(m), images, batch=1) for m in (fixed, integer, plain)]
    assert compare(scores[1], scores[2]).relative_error < 0.05
    assert np.abs(scores[0] - scores[2]).max() > 0, "the weights are the rounded ones"


def test_an_activation_that_integers_stand_for_comes_back() -> None:
    """A Clip to [0, 6] before integers that begin at 0 is left out: they cut off as well."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU6(),
        torch.nn.Conv2d(8, 4, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(3136, 5),
    )
    with torch.no_grad():
        body[0].weight.mul_(20)
    images = np.random.default_rng(0).normal(size=(16, *SHAPE)).astype(np.float32)
    target = find_target("android-litert")
    fixed = fix_batch(for_target(student_to_onnx(body.eval(), SHAPE), target), 1)
    integer = integer_model(fixed, target.scheme, images, images)
    plain = without_integers(integer)
    scores = [run_batched(open_session(m), images, batch=1) for m in (integer, plain)]
    assert compare(*scores).relative_error < 0.05


def test_a_model_as_c_source_compiles_to_its_bytes(tmp_path: Path) -> None:
    blob = bytes(range(256)) * 3 + b"x"
    for name, content in c_array_files(blob, ["CONV_2D", "DEPTHWISE_CONV_2D", "MEAN"]).items():
        (tmp_path / name).write_bytes(content)
    assert "AddDepthwiseConv2D();" in (tmp_path / "operators.txt").read_text()
    assert "MicroMutableOpResolver<3>" in (tmp_path / "operators.txt").read_text()
    (tmp_path / "main.cc").write_text(
        '#include "model_data.h"\n#include <cstdio>\n'
        "int main() { return fwrite(kModelData, 1, kModelDataSize, stdout) != kModelDataSize; }\n"
    )
    try:
        subprocess.run(["c++", "-std=c++17", "-o", "dump", "main.cc", "model_data.cc"], cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.skip("there is no C++ compiler here")
    assert subprocess.run([tmp_path / "dump"], capture_output=True, check=True).stdout == blob


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    fixed, integer, images = graphs(target="cortex-m")
    artifacts = Artifacts(
        {"fp32": fixed, "int8": integer}, "int8", "resnet8", Preprocess.from_range(0, 1, 3).to_dict(), images[:4],
        calibration=images, provenance={"teacher_sha256": ""},
    )  # fmt: skip
    return find_exporter("litert").export(artifacts, find_target("cortex-m"), tmp_path_factory.mktemp("b") / "bundle")


@installed
@pytest.mark.slow
def test_floats_are_the_same_and_integers_reach_everywhere(bundle: Bundle) -> None:
    fixed, _, images = graphs(target="cortex-m")
    exporter, reference = find_exporter("litert"), run_batched(open_session(fixed), images, batch=1)
    assert compare(reference, exporter.predict(bundle.directory / "model.fp32.tflite", images)).relative_error < 1e-4
    assert compare(reference, exporter.predict(bundle.directory / "model.int8.tflite", images)).same_class >= 0.9
    facts = bundle.manifest["litert"]["int8"]
    assert facts["integer_layers"] == facts["layers"] == 10
    assert (facts["input"]["dtype"], facts["output"]["dtype"]) == ("int8", "int8")
    assert facts["input"]["shape"] == [1, 32, 32, 3]
    # The first layer's sixteen maps beside its image, or two such maps beside a third.
    assert 32 * 32 * (16 + 3) <= facts["live_bytes"] <= 32 * 32 * 16 * 3


def test_microcontrollers_are_known_by_their_architecture() -> None:
    found = {name: find_target(name) for name in ("cortex-m", "esp32-s3", "android-litert", "rpi4")}
    assert [name for name, target in found.items() if target.is_microcontroller] == ["cortex-m", "esp32-s3"]
    assert {name for name, target in found.items() if target.input == "pixels"} == {"android-litert"}
    assert found["esp32-s3"].channel_multiple == 8


@installed
@pytest.mark.slow
def test_a_microcontrollers_bundle_holds_source_and_operators(bundle: Bundle) -> None:
    assert {"model_data.h", "model_data.cc", "operators.txt"} <= set(bundle.manifest["files"])
    size = (bundle.directory / "model.int8.tflite").stat().st_size
    assert f"kModelDataSize = {size};" in (bundle.directory / "model_data.h").read_text()


@installed
@pytest.mark.slow
def test_bench_checks_and_times_the_files(bundle: Bundle, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, bundle.directory / "bench", "--quick"], capture_output=True, text=True, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "latency.json").read_text())
    assert all(check["passed"] for check in found["checks"].values())
    assert found["environment"]["runtime"].startswith("litert ") and len(found["samples_ns"]["int8"]) >= 200
    assert set(found["memory_bytes"]) == set(found["samples_ns"])


@installed
@pytest.mark.slow
def test_from_a_teacher_to_a_verified_bundle(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("".join(f"digit {digit}\n" for digit in range(10)))
    flags = ("--input-mean", "0.1307", "--input-std", "0.3081", "--eval", "examples/mnist/sample.npz")
    flags += ("--classes-file", tmp_path / "names.txt")
    done = edgedafl(
        "quantize", "examples/mnist/teacher.onnx", "--target", "android-litert", "-o", tmp_path / "r", *flags
    )
    assert done.code == 0, done.err
    verify = json.loads((tmp_path / "r" / "run.json").read_text())["stages"]["verify"]["result"]
    assert verify["accuracy"]["int8"] >= verify["accuracy"]["teacher"] - 0.005
    assert verify["fidelity"]["int8"]["same"] >= 990
    assert "measured on labelled images" in done.out
    assert (tmp_path / "r" / "bundles" / "android-litert" / "labels.txt").read_text().startswith("digit 0\ndigit 1\n")


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentMissingError, match="LiteRT is not installed") as caught:
        find_exporter("litert").predict(tmp_path / "m.tflite", np.zeros((1, 3, 8, 8), np.float32))
    assert "edgedafl[litert]" in caught.value.hint
