"""Working memory from the order in which nodes run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from edgedafl.graph.peak_memory import peak_memory
from tests.conftest import assert_clean_failure, edgedafl

PIXELS = 8 * 8
MAP = 4 * PIXELS * 4  # four float channels


def graph(body: str) -> onnx.ModelProto:
    weights = ",".join(["0.1"] * 16)
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1,4,8,8] image) => (float[1,4,1,1] y) '
        f"<float[4,4,1,1] w = {{{weights}}}, float c = {{3}}> {{ {body} y = GlobalAveragePool(z) }}"
    )


@pytest.mark.parametrize(
    ("body", "maps"),
    [
        ("z = Conv(image, w)", 2),
        ("a = Conv(image, w) z = Conv(a, w)", 2),
        # The branch point is alive beside what is made of it, and the sum beside both.
        ("a = Conv(image, w) b = Conv(a, w) z = Add(a, b)", 3),
        ("a = Conv(image, w) b = Relu(a) z = Conv(b, w)", 2),
        # Sigmoid writes over what only it reads; the product needs all three.
        ("a = Conv(image, w) b = Sigmoid(a) z = Mul(a, b)", 3),
        ("a = Conv(image, w) b = Conv(image, w) d = Conv(a, w) e = Conv(b, w) z = Add(d, e)", 3),
    ],
)
def test_the_peak_is_that_of_the_tensors_alive(body: str, maps: int) -> None:
    found = peak_memory(graph(body), fused=False)
    assert found.peak == maps * MAP
    assert sum(found.alive.values()) == found.peak


def test_views_take_no_memory() -> None:
    shape = "<int64[2] s = {1, 256}>"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1,4,8,8] image) => (float[1,256] y) {shape} '
        "{ a = Abs(image) b = Reshape(a, s) y = Neg(b) }"
    )
    assert peak_memory(model, fused=False).peak == 2 * MAP


def test_integers_take_a_quarter_where_the_runtime_fuses_them(tmp_path: Path) -> None:
    run = edgedafl(
        "quantize", "examples/mnist/teacher.onnx", "--target", "raspberry-pi", "--input-mean", "0.1307",
        "--input-std", "0.3081", "-o", tmp_path / "run",
    )  # fmt: skip
    assert run.code == 0, run.err
    memory = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["export"]["result"]["memory"]
    assert 3 < memory["fp32"] / memory["int8"] < 4.5
    gate = edgedafl("gate", tmp_path / "run", "--max-ram", str(memory["int8"]), "--max-flash", "1MB")
    assert gate.code == 0 and "working memory" in gate.out and "flash" in gate.out
    assert edgedafl("gate", tmp_path / "run", "--max-ram", str(memory["int8"] - 1)).code == 1


def test_any_model_is_gated_by_its_memory(save: Callable[..., Path]) -> None:
    model = save(graph("a = Conv(image, w) b = Conv(a, w) z = Add(a, b)"))
    assert edgedafl("gate", model, "--max-ram", "10KB").code == 0
    assert edgedafl("gate", model, "--max-ram", "1KB").code == 1


def test_a_limit_that_nothing_meets_is_said_before_anything_is_written(tmp_path: Path) -> None:
    flags = ("--input-mean", "0.1307", "--input-std", "0.3081", "-o", tmp_path / "run")
    found = edgedafl("compress", "examples/mnist/teacher.onnx", "--max-ram", "100B", *flags)
    assert_clean_failure(found, 2, "No student fits --max-ram 100 B", "the leanest")
    assert not (tmp_path / "run").exists()
