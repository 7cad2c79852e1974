"""Ranges that outliers do not stretch, and rounding that makes up for itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedafl.export import student_to_onnx
from edgedafl.graph.constants import computed_constants
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import observe_activations, quantize_graph, rounding
from edgedafl.quantize.ptq import integer_readers
from edgedafl.quantize.ranges import Activation, Range, ranges_of
from edgedafl.quantize.rounding import Rounded, round_weights
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target

SHAPE = (3, 16, 16)
READERS = integer_readers(find_target("x86").scheme)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6(), nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.ReLU6(),
        nn.Conv2d(32, 48, 1), nn.ReLU6(), nn.Conv2d(48, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 7),
    )  # fmt: skip
    return fix_batch(for_target(student_to_onnx(net, SHAPE), find_target("x86")), 1)


def images(count: int, seed: int) -> np.ndarray:
    smooth = torch.nn.functional.interpolate(
        torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)), SHAPE[1:], mode="bilinear"
    )
    return smooth.numpy()


def rounded_on(model: onnx.ModelProto, given: np.ndarray, largest: Mapping[str, int] | None = None) -> Rounded:
    ranges = ranges_of(observe_activations(model, given), "robust")
    return round_weights(model, given, ranges, READERS, largest=largest or {})


def error(candidate: onnx.ModelProto, model: onnx.ModelProto) -> float:
    unseen = images(64, 9)
    wanted, found = (run_batched(open_session(m), unseen, batch=1) for m in (model, candidate))
    return float(np.mean((found - wanted) ** 2) / wanted.var())


def test_one_image_in_ten_does_not_stretch_a_range() -> None:
    highs = np.array([1.0] * 18 + [50.0] * 2)
    seen = {"a": Activation(np.zeros(20), highs, np.random.default_rng(0).uniform(0, 1, 1000))}
    assert ranges_of(seen, "min-max")["a"].high == 50
    assert ranges_of(seen, "robust")["a"].high == 2.5
    assert ranges_of(seen, "mse")["a"].high <= 2.5
    modest = {"a": Activation(np.full(4, -1.0), np.array([1.0, 1.2, 1.1, 1.3]), np.zeros(4))}
    assert (ranges_of(modest, "robust")["a"].low, ranges_of(modest, "robust")["a"].high) == (-1, 1.3)


def test_weights_that_make_up_for_each_other_lose_less(model: onnx.ModelProto) -> None:
    given = images(128, 1)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    rounded = rounded_on(model, given)
    for tensor in plain.graph.initializer:
        if tensor.name in rounded.steps:
            step = rounded.steps[tensor.name].reshape(-1, 1, 1, 1)
            value = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                onnx.numpy_helper.from_array((np.round(value / step) * step).astype(np.float32), tensor.name)
            )
    assert len(rounded.steps) == 4
    assert error(rounded.model, model) < 0.6 * error(plain, model)
    for tensor in rounded.model.graph.initializer:
        if tensor.name in rounded.steps:
            integers = onnx.numpy_helper.to_array(tensor) / rounded.steps[tensor.name].reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(integers, np.round(integers), atol=2e-3)
            assert np.abs(integers).max() < 127.01


def test_the_quantizer_keeps_weights_on_their_grid(model: onnx.ModelProto) -> None:
    target, given = find_target("x86"), images(128, 1)
    seen, rounded = observe_activations(model, given), rounded_on(model, given)
    integer = quantize_graph(rounded.model, target.scheme, seen, "robust", steps=rounded.steps)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in integer.graph.initializer}
    stored |= computed_constants(integer)
    grids = [
        stored[node.input[1]] for node in integer.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored and stored[node.input[0]].ndim == 4
    ]  # fmt: skip
    assert len(grids) == 4
    wanted = sorted(float(steps.sum()) for steps in rounded.steps.values())
    assert sorted(float(steps.sum()) for steps in grids) == pytest.approx(wanted, rel=1e-4)
    assert error(integer, model) < error(quantize_graph(model, target.scheme, seen, "robust"), model)


def test_scores_stay_float_so_that_none_is_clipped(model: onnx.ModelProto) -> None:
    target = find_target("x86")
    integer = quantize_graph(model, target.scheme, observe_activations(model, images(32, 1)), "robust")
    (last,) = [node for node in integer.graph.node if integer.graph.output[0].name in node.output]
    assert last.op_type != "DequantizeLinear"


def test_biases_make_up_for_half_of_the_median_images_mean_error() -> None:
    """A value is rounded down by 0.4 on every image but one, which runs far beyond the range."""
    node = onnx.helper.make_node("Conv", ["image", "w", "b"], ["scores"], "c")
    value = onnx.helper.make_tensor_value_info
    weights = {"w": np.array([1.0, -3.0]).reshape(2, 1, 1, 1), "b": np.zeros(2)}
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node], "g", [value("image", 1, [1, 1, 2, 2])], [value("scores", 1, [1, 2, 2, 2])],
            [onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )  # fmt: skip
    given = np.full((5, 1, 2, 2), 10.4, np.float32)
    given[0] = 4000

    def biases(operators: set[str]) -> np.ndarray:
        changed = round_weights(model, given, {"image": Range(0, 255)}, operators).model
        return next(onnx.numpy_helper.to_array(t) for t in changed.graph.initializer if t.name == "b")

    # Weights lie on their grid up to a bfloat16's rounding of its step.
    np.testing.assert_allclose(biases({"Conv"}), [0.2, -0.6], atol=0.07)
    np.testing.assert_allclose(biases({"MatMul"}), [0, 0], atol=0.07)


def test_biases_bring_the_means_of_a_coarse_network_nearer(model: onnx.ModelProto) -> None:
    """Of four bits, so that rounding weighs more than chance."""
    given, unseen = images(128, 1), images(64, 9)
    seven = {tensor.name: 7 for tensor in model.graph.initializer if len(tensor.dims) == 4}
    coarse = rounded_on(model, given[:64], seven).model
    old = {t.name: t for t in model.graph.initializer}
    without = onnx.ModelProto()
    without.CopyFrom(coarse)
    for tensor in without.graph.initializer:
        if len(tensor.dims) == 1:
            tensor.CopyFrom(old[tensor.name])
    wanted = run_batched(open_session(model), unseen, batch=1).mean(0)

    def miss(graph: onnx.ModelProto) -> float:
        return float(np.abs(run_batched(open_session(graph), unseen, batch=1).mean(0) - wanted).mean())

    assert miss(coarse) < 0.7 * miss(without)


@pytest.mark.parametrize("largest", [7, 25])
def test_each_weight_keeps_to_its_own_integers(model: onnx.ModelProto, largest: int) -> None:
    given = images(64, 1)
    ranges = ranges_of(observe_activations(model, given), "robust")
    names = {t.name: tuple(t.dims) for t in model.graph.initializer}
    coarse = {name: largest for name, shape in names.items() if shape in ((48, 32, 1, 1), (7, 24))}
    found = round_weights(model, given, ranges, READERS, largest=coarse)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in found.model.graph.initializer}
    assert len(coarse) == 2 and set(coarse) < set(found.steps)
    for name, steps in found.steps.items():
        whole = stored[name] / steps.reshape(-1, *[1] * (stored[name].ndim - 1))
        np.testing.assert_allclose(whole, whole.round(), atol=1e-3)
        assert int(np.abs(whole).round().max()) == coarse.get(name, 127), names[name]


def test_fewer_integers_lose_less_where_errors_are_made_up_for(model: onnx.ModelProto) -> None:
    given = images(128, 1)
    seen = observe_activations(model, given)
    ranges, scheme = ranges_of(seen, "robust"), find_target("x86").scheme
    seven = {tensor.name: 7 for tensor in model.graph.initializer}
    found = round_weights(model, given, ranges, READERS, largest=seven)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "_MOST_COLUMNS", 0)
        nearest = round_weights(model, given, ranges, READERS, largest=seven)
    mine, plain = (quantize_graph(r.model, scheme, seen, "robust", steps=r.steps) for r in (found, nearest))
    assert error(mine, model) < error(plain, model)


@pytest.mark.parametrize("transposed", [False, True])
def test_matrix_products_keep_to_fewer_integers_on_either_side(transposed: bool) -> None:
    """Channels run along axis 0 of a transposed weight, along axis 1 of another."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 10)).astype(np.float32)
    text = (
        '<ir_version: 8, opset_import: ["": 18]> g (float[1,64] image) => (float[1,10] y) '
        f"{{ [head] y = Gemm<transB = {int(transposed)}>(image, w, b) }}"
    )
    graph = onnx.parser.parse_model(text)
    stored = weight.T.copy() if transposed else weight
    graph.graph.initializer.extend(
        [onnx.numpy_helper.from_array(stored, "w"), onnx.numpy_helper.from_array(np.zeros(10, np.float32), "b")]
    )
    given = random.normal(size=(256, 64)).astype(np.float32)
    seen = observe_activations(graph, given)
    found = round_weights(graph, given, ranges_of(seen, "robust"), READERS, largest={"w": 7})
    integer = quantize_graph(found.model, find_target("x86").scheme, seen, "robust", steps=found.steps)
    whole = next(t for t in map(onnx.numpy_helper.to_array, integer.graph.initializer) if t.shape == stored.shape)
    assert whole.dtype == np.int8 and np.abs(whole).max() == 7
    wanted, made = (run_batched(open_session(m), given, batch=1) for m in (graph, integer))
    assert np.mean((made - wanted) ** 2) < 0.02 * wanted.var(), "fifteen integers of normal weights cost 1.1 %"
