"""Working memory from the order in which nodes run."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.memory import growth
from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.kernel_memory import scratch_bytes
from edgedafl.graph.peak_memory import peak_memory
from edgedafl.students import build_student
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


def test_a_free_buffer_is_kept_for_a_later_value_of_its_shape() -> None:
    weights = ",".join(["0.1"] * 64)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[1,4,8,8] image) => (float[1,4,1,1] y)
        <float[4,4,1,1] w = {{{",".join(["0.1"] * 16)}}}, float[16,4,1,1] wide = {{{weights}}},
        float[4,16,1,1] back = {{{weights}}}>
        {{
            a = Conv(image, w)
            b = Conv(a, wide)
            d = Conv(b, wide_after)
            e = Conv(d, back)
            y = GlobalAveragePool(e)
        }}"""
    )
    square = onnx.numpy_helper.from_array(np.full((16, 16, 1, 1), 0.1, np.float32), "wide_after")
    model.graph.initializer.append(square)
    # The image; a, which waits for e; b and d, of four times its size.
    assert peak_memory(model, architecture="aarch64").peak == (1 + 1 + 4 + 4) * MAP
    assert peak_memory(model, fused=False).peak == 8 * MAP
    # Other runtimes: what is alive is all.
    assert peak_memory(model, architecture="aarch64", runtime="executorch").peak == 8 * MAP


def test_a_hard_swish_takes_two_values_more_where_nothing_fuses_it() -> None:
    model = graph("a = Conv(image, w) b = HardSwish(a) z = Conv(b, w)")
    assert peak_memory(model, architecture="aarch64").peak == (1 + 3) * MAP


@pytest.mark.parametrize(
    ("weight", "groups", "architecture", "scratch"),
    [
        # Sums in 32 bits, and every patch spelled out: three input channels have no kernel of their own.
        ((16, 3, 3, 3), 1, "x86_64", 4 * 16 * PIXELS + 27 * PIXELS),
        # One pointer for each pixel of the kernel, and rounded at once.
        ((16, 16, 3, 3), 1, "x86_64", 8 * 9 * PIXELS),
        ((16, 16, 3, 3), 1, "aarch64", 8 * 9 * PIXELS),
        ((16, 16, 1, 1), 1, "x86_64", 0),
        ((16, 16, 1, 1), 1, "aarch64", 4 * 16 * PIXELS),
        ((24, 1, 3, 3), 24, "x86_64", 4 * 24 * PIXELS + 8 * 9 * PIXELS),
        ((24, 1, 3, 3), 24, "aarch64", 8 * 9 * PIXELS),
    ],
)
def test_what_kernels_of_integers_take(weight: tuple[int, ...], groups: int, architecture: str, scratch: int) -> None:
    edge = (weight[2] - 1) // 2
    node = onnx.helper.make_node(
        "QLinearConv", ["x", "", "", "w", "", "", "", ""], ["y"], group=groups, pads=[edge] * 4, channels_last=1
    )
    shapes = {"x": (1, 8, 8, weight[1] * groups), "w": weight, "y": (1, 8, 8, weight[0])}
    assert scratch_bytes(node, shapes, architecture) == scratch
    assert scratch_bytes(onnx.helper.make_node("Conv", ["x", "w"], ["y"]), shapes, architecture) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["resnet18", "convnet"])
def test_it_is_what_a_process_grows_by(name: str) -> None:
    model = fix_batch(student_to_onnx(build_student(name, (3, 224, 224), 10).module.eval(), (3, 224, 224)), 1)
    architecture = "aarch64" if platform.machine() == "aarch64" else "x86_64"
    assert peak_memory(model, architecture=architecture).peak == pytest.approx(
        growth(model, processes=1) + 4 * 3 * 224**2, rel=0.15
    )


def test_a_run_records_it_and_a_gate_obeys_it(tmp_path: Path) -> None:
    run = edgedafl(
        "quantize", "examples/mnist/teacher.onnx", "--target", "raspberry-pi", "--input-mean", "0.1307",
        "--input-std", "0.3081", "-o", tmp_path / "run",
    )  # fmt: skip
    assert run.code == 0, run.err
    memory = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["export"]["result"]["memory"]
    # 5 x 5 kernels on one channel: sums in 32 bits and every patch spelled out outweigh what integers save.
    assert memory["int8"] > memory["fp32"] > 4 * 28 * 28 + 4 * 6 * 24 * 24
    gate = edgedafl("gate", tmp_path / "run", "--max-ram", str(memory["int8"]), "--max-flash", "1MB")
    assert gate.code == 0 and "working memory" in gate.out and "flash" in gate.out
    assert edgedafl("gate", tmp_path / "run", "--max-ram", str(memory["int8"] - 1)).code == 1


def test_any_model_is_gated_by_its_memory(save: Callable[..., Path]) -> None:
    model = save(graph("a = Conv(image, w) b = Conv(a, w) z = Add(a, b)"))
    assert edgedafl("gate", model, "--max-ram", "100KB").code == 0
    assert edgedafl("gate", model, "--max-ram", "1KB").code == 1


def test_a_limit_that_nothing_meets_is_said_before_anything_is_written(tmp_path: Path) -> None:
    flags = ("--input-mean", "0.1307", "--input-std", "0.3081", "-o", tmp_path / "run")
    found = edgedafl("compress", "examples/mnist/teacher.onnx", "--max-ram", "100B", *flags)
    assert_clean_failure(found, 2, "No student fits --max-ram 100 B", "the leanest")
    assert not (tmp_path / "run").exists()
