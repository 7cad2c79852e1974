"""Bits where the scores feel them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.packed import WEIGHT_BITS, largest_integer
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import allocation
from edgedafl.quantize.allocation import allocate_bits, rounding_noise
from edgedafl.quantize.steps import on_grid, weight_steps
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target
from tests.quantize.test_rounding import SHAPE, images


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Small layers that everything passes through, and a large one whose answer hardly counts."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 256, 1), nn.ReLU(), nn.Conv2d(256, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    with torch.no_grad():
        net[6].weight.mul_(0.05)
        net[9].weight[:, :60].mul_(0.1)
    return fix_batch(for_target(student_to_onnx(net, SHAPE), find_target("x86")), 1)


def mean_of(bits: dict[str, float], model: onnx.ModelProto) -> float:
    counts = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer if t.name in bits}
    return sum(bits[name] * counts[name] for name in bits) / sum(counts.values())


def rounded(model: onnx.ModelProto, bits: dict[str, float]) -> onnx.ModelProto:
    """Weights at the nearest of their integers; axis 0 are output channels."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in bits:
            exact = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            flat, largest = exact.reshape(1, len(exact), -1), largest_integer(bits[tensor.name])
            value = on_grid(flat, weight_steps(flat, largest), largest).reshape(exact.shape).numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return changed


def error(candidate: onnx.ModelProto, model: onnx.ModelProto) -> float:
    unseen = images(64, 9)
    wanted, found = (run_batched(open_session(m), unseen, batch=1) for m in (model, candidate))
    difference = found - wanted
    return float(np.mean((difference - difference.mean(1, keepdims=True)) ** 2) / wanted.var())


@pytest.mark.parametrize("mean", [4.0, 5.0, 6.5])
def test_the_mean_is_kept_to_and_bits_that_go_where_they_count_lose_less(model: onnx.ModelProto, mean: float) -> None:
    bits = allocate_bits(model, images(16, 0), mean)
    assert set(bits.values()) <= set(WEIGHT_BITS)
    assert mean - 0.6 < mean_of(bits, model) <= mean
    same = dict.fromkeys(bits, next(b for b in WEIGHT_BITS if b <= mean))
    assert error(rounded(model, bits), model) < 0.8 * error(rounded(model, same), model)


def test_noise_to_first_order_is_what_rounding_one_layer_does(model: onnx.ModelProto) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "_DIRECTIONS", 40)
        noise = rounding_noise(model, images(16, 0))
    found = {name: error(rounded(model, {name: 4.0}), model) for name in noise}
    told, measured = (np.array([values[name] for name in noise]) for values in (noise, found))
    ratio = told / told.sum() / (measured / measured.sum())
    assert np.all((ratio > 0.4) & (ratio < 2.5)), ratio


def test_eight_bits_are_eight_everywhere(model: onnx.ModelProto) -> None:
    assert set(allocate_bits(model, images(4, 0), 8.0).values()) == {8.0}


def test_nibbles_are_four_bits_or_eight_and_depthwise_layers_keep_eight() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU(), nn.Conv2d(32, 64, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    graph = fix_batch(for_target(student_to_onnx(net, SHAPE), find_target("x86")), 1)
    deep = next(n.input[1] for n in graph.graph.node if any(a.name == "group" and a.i > 1 for a in n.attribute))
    bits = allocate_bits(graph, images(8, 0), 5.0, nibbles=True)
    assert set(bits.values()) == {8.0, 4.0} and bits[deep] == 8.0
    assert mean_of(bits, graph) <= 5.0
    least = allocate_bits(graph, images(8, 0), 4.0, nibbles=True)
    assert {name for name, own in least.items() if own == 8.0} == {deep}, "as few as can be had"
