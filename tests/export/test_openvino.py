"""Bundles for OpenVINO, compiled and run by OpenVINO itself."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgedafl.errors import UnsupportedModelError
from edgedafl.export import Artifacts, find_exporter
from edgedafl.graph.half import to_half
from edgedafl.graph.parity import compare
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import Preprocess
from edgedafl.targets import find_target
from tests.conftest import edgedafl
from tests.export.test_litert import graphs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("openvino") is None,
        reason="OpenVINO is not installed: pip install 'edgedafl[openvino]'",
    ),
]
TARGET = "x86-64-openvino"


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2", "convnet", "lenet5"])
def test_openvino_answers_as_onnxruntime_and_in_integers(name: str, tmp_path: Path) -> None:
    fixed, integer, images = graphs(name, TARGET)
    artifacts = Artifacts(
        {"fp32": fixed, "fp16": to_half(fixed), "int8": integer}, "int8", name,
        Preprocess.from_range(0, 1, 3).to_dict(), images[:4], calibration=images, provenance={"teacher_sha256": ""},
    )  # fmt: skip
    exporter = find_exporter("openvino")
    bundle = exporter.export(artifacts, find_target(TARGET), tmp_path / "bundle")
    for precision, error in (("fp32", 1e-4), ("fp16", 1e-2), ("int8", 5e-2)):
        reference = run_batched(open_session(artifacts.models[precision]), images, batch=1)
        found = exporter.predict(bundle.directory / f"model.{precision}.onnx", images)
        assert compare(reference, found).relative_error < error, precision
    built = exporter.try_build(bundle.directory / "model.int8.onnx")
    assert built["integer_layers"] == built["layers"] >= 3
    assert exporter.try_build(bundle.directory / "model.fp32.onnx")["integer_layers"] == 0
    if name == "resnet8":
        check_bench(bundle.directory, tmp_path)


def check_bench(bundle: Path, folder: Path) -> None:
    """What travels with the bundle runs it with OpenVINO."""
    done = subprocess.run(
        [sys.executable, bundle / "bench", "--quick"], capture_output=True, text=True, check=False,
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found_there = json.loads((folder / "latency.json").read_text())
    assert found_there["environment"]["runtime"].startswith("openvino 20")
    assert all(check["passed"] for check in found_there["checks"].values())


def test_a_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(UnsupportedModelError, match=r"OpenVINO cannot take m\.onnx"):
        find_exporter("openvino").predict(tmp_path / "m.onnx", np.zeros((1, 3, 8, 8), np.float32))


def test_from_a_teacher_to_a_bundle_that_openvino_has_judged(tmp_path: Path) -> None:
    flags = ("--input-mean", "0.1307", "--input-std", "0.3081", "--eval", "examples/mnist/sample.npz")
    here = ("--device", "local", "--quick")
    done = edgedafl("quantize", "examples/mnist/teacher.onnx", "--target", TARGET, "-o", tmp_path / "r", *here, *flags)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    accuracy = record["stages"]["verify"]["result"]["accuracy"]
    assert accuracy["int8"] >= accuracy["teacher"] - 0.005
    assert record["stages"]["export"]["result"]["primary"] == "model.int8.onnx"
    measured = record["stages"]["profile"]["result"]["measured"]
    assert measured["environment"]["runtime"].startswith("openvino ")
    assert {"fp32", "int8"} <= set(measured["summaries"])
