"""Constants of an integer graph in fewer bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import nn

from edgedafl.export import student_to_onnx
from edgedafl.graph import narrow as module
from edgedafl.graph.compact import compact
from edgedafl.graph.constants import computed_constants
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.narrow import narrow, next_bfloat16
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import integer_model, ptq
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def pair() -> tuple[onnx.ModelProto, onnx.ModelProto, np.ndarray]:
    """An integer MobileNet block with its constants wide and narrow, and images."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU6(), nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.ReLU6(),
        nn.Conv2d(64, 96, 1), nn.ReLU6(), nn.Conv2d(96, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 7),
    )  # fmt: skip
    target = find_target("x86")
    graph = fix_batch(for_target(student_to_onnx(net, SHAPE), target), 1)
    images = np.random.default_rng(0).random((48, *SHAPE), dtype=np.float32)
    small = integer_model(graph, target.scheme, images, images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ptq, "narrow", lambda model: model)
        wide = integer_model(graph, target.scheme, images, images)
    return wide, small, images


def test_the_next_number_of_bfloat16_is_not_smaller_and_near() -> None:
    values = np.geomspace(1e-9, 1e4, 999).astype(np.float32)
    found = next_bfloat16(values)
    assert np.all(found >= values) and np.all(found <= values * (1 + 2**-7))
    assert not np.any(found.view(np.uint32) & 0xFFFF)
    np.testing.assert_array_equal(next_bfloat16(found), found)


def test_a_narrow_graph_answers_the_same_in_fewer_bytes(pair) -> None:
    wide, small, images = pair
    assert small.ByteSize() < 0.86 * wide.ByteSize()
    wanted, found = (run_batched(open_session(m), images, batch=1) for m in (wide, small))
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    assert np.mean(found.argmax(1) == wanted.argmax(1)) >= 0.95
    onnx.checker.check_model(small, full_check=True)


def test_every_layer_still_runs_in_integers(pair, tmp_path: Path) -> None:
    kinds = []
    for index, model in enumerate(pair[:2]):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{index}.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds.append(Counter(node.op_type for node in onnx.load(tmp_path / f"{index}.onnx").graph.node))
    assert kinds[0] == kinds[1] and kinds[1]["QLinearConv"] == 4


def test_our_own_executor_reads_it(pair) -> None:
    _, small, images = pair
    module_ = OnnxModule(small)
    with torch.no_grad():
        found = module_.run({module_.input_names[0]: torch.from_numpy(images[:1])})[module_.output_names[0]]
    wanted = run_batched(open_session(small), images[:1], batch=1)
    np.testing.assert_allclose(found.numpy(), wanted, atol=0.05 * np.abs(wanted).max())


def test_biases_beyond_half_precision_are_divided_by_a_power_of_two(pair) -> None:
    wide, _, _ = pair
    large = onnx.ModelProto()
    large.CopyFrom(wide)
    for tensor in large.graph.initializer:
        numbers = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.data_type == TensorProto.INT32 and numbers.ndim == 1 and numbers.any():  # no zero point
            numbers[0] = -5 * module._LARGEST_HALF
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers, tensor.name))
    kept = compact(narrow(large))
    (halves,) = [t for t in kept.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert np.abs(onnx.numpy_helper.to_array(halves)).max() == 5 * module._LARGEST_HALF / 8
    wanted, found = (_biases(m) for m in (large, kept))
    assert [len(one) for one in found] == [len(one) for one in wanted] and len(found) == 5
    for one, other in zip(wanted, found, strict=True):
        assert np.all(np.abs(one - other) <= np.abs(one) / 2**11)


def test_whole_numbers_of_eleven_bits_stay_exact_however_large_others_are() -> None:
    small, large = np.arange(-2048, 2049, dtype=np.int32), np.array([2**31 - 1, -(2**31)], np.int32)
    graph = onnx.GraphProto()
    joined = module._Narrowing(graph)._joined_biases({"small": small, "large": large})
    assert [*joined] == ["small", "large"]
    halves, factor = (onnx.numpy_helper.to_array(t) for t in graph.initializer[:2])
    found = (halves.astype(np.float32) * factor).astype(np.int64)
    np.testing.assert_array_equal(found[:-2], small)
    assert found.max() < 2**31
    assert np.all(np.abs(found[-2:] - large) <= 2**31 / 2**11)


def test_few_numbers_stay_as_they_are(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, _, images = pair
    monkeypatch.setattr(module, "_LEAST_NUMBERS", 10_000)
    kept = compact(narrow(wide))
    assert not {"Cast", "Split"} & {node.op_type for node in kept.graph.node}
    wanted, found = (run_batched(open_session(m), images[:4], batch=1) for m in (wide, kept))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def _biases(model: onnx.ModelProto) -> list[np.ndarray]:
    """Biases of the layers as integers, in graph order."""
    written = {name: node for node in model.graph.node for name in node.output}
    names = [written[n.input[2]].input[0] for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    known = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer} | computed_constants(model)
    return [np.asarray(known[name]).astype(np.int64) for name in names]


def test_nodes_and_values_of_any_name_are_left_alone(pair) -> None:
    wide, _, images = pair
    named = onnx.ModelProto()
    named.CopyFrom(wide)
    for index, node in enumerate(named.graph.node):
        node.name = f"n{index}"
    kept = compact(narrow(named))
    wanted, found = (run_batched(open_session(m), images[:4], batch=1) for m in (named, kept))
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())
    assert {node.name for node in kept.graph.node if node.op_type == "Conv"} == {
        node.name for node in named.graph.node if node.op_type == "Conv"
    }
