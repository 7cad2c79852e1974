"""Weights of four bits in .tflite files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from edgedafl.graph.edit import model_bytes
from edgedafl.graph.packed import packed
from edgedafl.quantize import integer_model
from edgedafl.stages.graphs import file_size
from edgedafl.targets import find_target
from edgedafl_exporters.litert_nibbles import has_nibbles, to_nibbles
from tests.conftest import edgedafl
from tests.export.test_litert import graphs, installed

SCHEMA = SimpleNamespace(
    BuiltinOperator=SimpleNamespace(CONV_2D=3, FULLY_CONNECTED=9),
    TensorType=SimpleNamespace(INT8=9, INT4=17),
)


def tree_of(weights: np.ndarray, scales: np.ndarray, bias: np.ndarray, kind: int = 3) -> Any:
    """One layer as LiteRT's quantizer leaves it: every channel's largest integer is 127."""

    def tensor(buffer: int, shape: tuple[int, ...], scale: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(buffer=buffer, shape=shape, type=9, quantization=SimpleNamespace(scale=scale))

    blobs = [np.frombuffer(array.tobytes(), np.uint8) for array in (weights.astype(np.int8), bias.astype(np.int32))]
    return SimpleNamespace(
        operatorCodes=[SimpleNamespace(builtinCode=kind, deprecatedBuiltinCode=0)],
        buffers=[SimpleNamespace(data=blob) for blob in blobs],
        subgraphs=[
            SimpleNamespace(
                tensors=[None, tensor(0, weights.shape, scales), tensor(1, bias.shape, 0.5 * scales)],
                operators=[SimpleNamespace(opcodeIndex=0, inputs=[0, 1, 2])],
            )
        ],
    )


def few(largest: list[int], columns: int = 9) -> np.ndarray:
    """Integers of four bits, the largest of each channel as told."""
    random = np.random.default_rng(0)
    rows = np.stack([random.integers(-most, most + 1, columns) for most in largest])
    rows[:, 0] = largest
    return rows


def unpacked(blob: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    values = np.stack([blob & 0xF, blob >> 4], 1).reshape(-1)[: int(np.prod(shape))].astype(int)
    return np.where(values > 7, values - 16, values).reshape(shape)


def test_multiples_of_four_bits_are_stored_as_such() -> None:
    largest = [7, 5, 1]
    nibbles, steps, bias = few(largest), np.array([0.1, 0.2, 0.4]), np.array([1000, -2000, 127])
    scale = steps * np.array(largest) / 127
    wide = np.round(nibbles * 127 / np.array(largest)[:, None])
    tree = tree_of(wide, scale, bias)
    assert to_nibbles(tree, SCHEMA) == 1
    _, weight, offset = tree.subgraphs[0].tensors
    assert weight.type == SCHEMA.TensorType.INT4
    np.testing.assert_array_equal(unpacked(tree.buffers[0].data, (3, 9)), nibbles)
    assert len(tree.buffers[0].data) == 14, "27 weights in 14 bytes"
    np.testing.assert_allclose(weight.quantization.scale, steps, rtol=1e-6)
    kept = np.frombuffer(tree.buffers[1].data.tobytes(), np.int32) * np.asarray(offset.quantization.scale)
    np.testing.assert_allclose(kept, bias * 0.5 * scale, atol=0.25 * steps.max())


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        (np.random.default_rng(0).integers(-127, 128, (3, 9)), 3),  # eight bits
        (np.round(few([7, 7, 7], columns=4) * 127 / 7), 3),  # too few to tell
        (np.round(few([7, 7, 7]) * 127 / 7), 4),  # a depthwise convolution
    ],
)
def test_other_layers_stay_as_they_are(weights: np.ndarray, kind: int) -> None:
    tree = tree_of(weights, np.ones(3), np.zeros(3), kind)
    before = tree.buffers[0].data
    assert to_nibbles(tree, SCHEMA) == 0
    assert tree.buffers[0].data is before


def test_graphs_of_a_target_of_nibbles_have_eight_bits_or_four() -> None:
    fixed, integer, images = graphs()
    scheme = find_target("android-litert").scheme
    less = integer_model(fixed, scheme, images, images, 5.0)
    assert (has_nibbles(integer), has_nibbles(less)) == (False, True)
    weights = [t for t in less.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    largest = [int(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max()) for tensor in weights]
    assert {value for value in largest if value > 7} <= set(range(64, 128)), largest
    assert sum(value <= 7 for value in largest) >= 2


def test_the_size_of_a_tflite_is_told_with_its_tables() -> None:
    _, integer, _ = graphs()
    plain = len(model_bytes(packed(integer)))
    assert file_size(integer, find_target("rpi4")) == plain
    layers = [node for node in integer.graph.node if node.op_type in ("Conv", "Gemm")]
    channels = [16] * 3 + [32] * 3 + [64] * 3 + [10]
    assert file_size(integer, find_target("android-litert")) == plain + 7 * sum(channels) + 410 * len(layers)


@installed
@pytest.mark.slow
def test_a_limit_on_size_takes_nibbles_and_is_kept(tmp_path: Path) -> None:
    teacher = "examples/mnist/teacher.onnx"
    flags = ("--input-mean", "0.1307", "--input-std", "0.3081", "--eval", "examples/mnist/sample.npz")
    flags += ("--target", "android-litert", "--device", "none", "--time-budget", "5s")
    done = edgedafl("compress", teacher, *flags, "--max-size", "55KB", "-o", tmp_path / "r")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["student"]["name"] == "kept:1" and 4 <= record["weight_bits"] < 8
    file = tmp_path / "r" / "bundles" / "android-litert" / "model.int8.tflite"
    assert 45_000 < file.stat().st_size <= 55_000
    assert record["stages"]["verify"]["result"]["fidelity"]["int8"]["same"] >= 985
