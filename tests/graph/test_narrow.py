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


def test_what_does_not_fit_half_precision_stays_as_it_is(pair) -> None:
    wide, _, _ = pair
    odd = onnx.ModelProto()
    odd.CopyFrom(wide)
    for tensor in odd.graph.initializer:
        numbers = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.data_type == TensorProto.INT32 and numbers.ndim == 1 and numbers.any():  # no zero point
            numbers[0] = 3 * module._LARGEST_HALF
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers, tensor.name))
    kept = compact(narrow(odd))
    assert not [t for t in kept.graph.initializer if t.data_type == TensorProto.FLOAT16]
    wanted, found = (run_batched(open_session(m), pair[2][:4], batch=1) for m in (odd, kept))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


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
