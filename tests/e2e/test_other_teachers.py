"""The whole job for teachers that only answer, stand on a server, or know one attribute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgedafl.graph.runtime import open_session, run_batched
from tests.conftest import TinyNet, assert_clean_failure, edgedafl, export
from tests.teachers.test_http_teacher import counted, serving
from tests.teachers.test_torch_files import saved

pytestmark = pytest.mark.slow

STEPS = [
    "--min-fidelity",
    "0",
    "--steps",
    "40",
    "--quick",
    "--threads",
    "1",
    "--input-range",
    "0,1",
    "--student",
    "lenet5-half",
]


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_compress_a_black_box(access: str, tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = edgedafl(
        "compress", tiny_onnx, "--access", access, "--max-queries", "3000", "--target", "rpi5", "-o", out, *STEPS
    )
    assert result.code == 0, result.err
    run = json.loads((out / "run.json").read_text())
    assert run["teacher"]["access"] == access
    assert run["stages"]["distill"]["result"]["method"] == "blackbox"
    assert 1000 < run["stages"]["distill"]["result"]["queries"] <= 3000
    page = (out / "report.html").read_text()
    assert "Agreement by queries" in page


def test_compress_a_served_teacher(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with serving(tiny_onnx, tmp_path, "--binary", "--fail-every", "7") as (url, counter):
        flags = ["--max-queries", "2500", "--target", "x86", "-o", out, *STEPS]
        result = edgedafl("compress", "--teacher-url", url, *flags)
        assert result.code == 0, result.err
        run = json.loads((out / "run.json").read_text())
        assert run["stages"]["distill"]["result"]["queries"] == counted(counter) <= 2500
    assert run["teacher"]["name"] == "net"
    assert run["teacher"]["size"] == 0
    assert "teacher" in (out / "report.md").read_text()


def test_compress_a_binary_attribute(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = TinyNet(classes=1)
    with torch.no_grad():
        module.fc.weight.mul_(6)
    path = export(module, tmp_path / "smile.onnx")
    images = np.random.default_rng(0).integers(0, 256, (100, 1, 16, 16), dtype=np.uint8)
    scores = run_batched(open_session(path), images.astype(np.float32) / 255)
    np.savez(tmp_path / "eval.npz", images=images, labels=(scores[:, 0] > 0).astype(np.int64))
    out = tmp_path / "run"
    result = edgedafl("compress", path, "--target", "jetson", "-o", out, "--eval", tmp_path / "eval.npz", *STEPS)
    assert result.code == 0, result.err
    run = json.loads((out / "run.json").read_text())
    assert (run["teacher"]["task"], run["teacher"]["num_classes"]) == ("binary", 1)
    assert run["stages"]["verify"]["result"]["accuracy"]["teacher"] == 1.0
    student = onnx.load(out / "student.onnx").graph.output[0].type.tensor_type.shape.dim
    assert student[1].dim_value == 1
    assert 0.5 < run["stages"]["verify"]["result"]["agreement"]["int8"] <= 1


def test_compress_an_exported_program(tmp_path: Path) -> None:
    path, _ = saved("exported", tmp_path)
    flags = ["--input-shape", "1,16,16", "--target", "x86", "-o", tmp_path / "run", *STEPS]
    assert_clean_failure(edgedafl("compress", path, *flags), 2, "can run code", "--trust")
    result = edgedafl("compress", path, "--trust", *flags)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["One teacher is needed"]),
        (["net.onnx", "--teacher-url", "http://127.0.0.1:1/v2/models/a"], 2, ["both given"]),
        (["--teacher-url", "http://127.0.0.1:1/predict"], 2, ["not a model address"]),
        (["--teacher-url", "http://127.0.0.1:1/v2/models/a", "--token-env", "NOT_SET"], 2, ["NOT_SET"]),
        (["net.onnx", "--access", "everything"], 2, ["access"]),
        (["net.onnx", "--max-queries", "3"], 2, ["max_queries"]),
    ],
)
def test_wrong_words_about_the_teacher(arguments: list[str], code: int, words: list[str], tmp_path: Path) -> None:
    assert_clean_failure(edgedafl("compress", *arguments, "-o", tmp_path / "run"), code, *words)


def test_inspect_says_what_may_be_used(tiny_onnx: Path, tmp_path: Path) -> None:
    found = edgedafl("inspect", tiny_onnx, "--access", "labels", "--json")
    assert found.code == 0, found.err
    assert found.json["teacher"]["access"] == "labels"
    with serving(tiny_onnx, tmp_path) as (url, _):
        served = edgedafl("inspect", "--teacher-url", url)
    assert served.code == 0, served.err
    assert "not known" in served.out and "scores" in served.out
