"""Accuracy control: ranges, sensitivity, quantization-aware training, what runs in integers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgedafl.export import student_to_onnx
from edgedafl.graph.coverage import integer_coverage
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.layer_names import layer_names, name_layers
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import Preprocess
from edgedafl.quantize import (
    CalibrationSet,
    Fidelity,
    ModelComparer,
    keep_worst_layers,
    layer_sensitivities,
    quantize_graph,
    quantize_model,
    train_quantized,
    weighted_nodes,
    within_drop,
)  # fmt: skip
from edgedafl.quantize.ranges import least_error_range, observe_activations
from edgedafl.runs import LayerTime
from edgedafl.stages.graphs import for_target
from edgedafl.students import build_student
from edgedafl.targets import find_target, list_targets

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    import torch

    torch.manual_seed(1)
    module = build_student("resnet8:0.5", SHAPE, 5).module
    with torch.no_grad():  # scores far enough apart to be classes
        x = torch.rand(64, *SHAPE) * 4 - 2
        module.fc.weight.mul_(3 / module.eval()(x).std(0).mean())
        module.fc.bias.sub_(module(x).mean(0))
    return fix_batch(student_to_onnx(module, SHAPE), 1)


def calibration_for(model: onnx.ModelProto, seed: int = 0) -> CalibrationSet:
    """Noise images, with the model itself as the teacher."""
    random = np.random.default_rng(seed)
    preprocess = Preprocess.from_mean_std((0.5,), (0.25,), 3)
    pixels = random.integers(0, 256, (600, *SHAPE), dtype=np.uint8)
    blank = CalibrationSet(pixels[:32], pixels[32:160], np.zeros(128, np.int64), preprocess)
    session = open_session(model)
    classes = run_batched(session, blank.probe_images(), batch=1).argmax(1)
    train = replace(blank, training_pixels=pixels[160:])
    images = train.training_pixels.astype(np.float32)
    images = (images / 255 - 0.5) / 0.25
    logits = run_batched(session, images.astype(np.float32), batch=1)
    return replace(train, probe_classes=classes, training_logits=logits)


@pytest.fixture(scope="module")
def calibration(model: onnx.ModelProto) -> CalibrationSet:
    return calibration_for(model)


def spoiled(model: onnx.ModelProto, node: str, channel: int, factor: float) -> onnx.ModelProto:
    """One channel of one layer far larger than the others, made good in the layer after it.

    The float function is (nearly) the same; eight bits for the whole activation are too few, and a factor of a million
    is more than `equalized` evens out.
    """
    bad = onnx.ModelProto()
    bad.CopyFrom(model)
    nodes = {n.name: n for n in bad.graph.node}
    tensors = {t.name: t for t in bad.graph.initializer}
    output = nodes[node].output[0]
    relu = next(n for n in bad.graph.node if output in n.input)
    after = [n for n in bad.graph.node if relu.output[0] in n.input]
    assert [n.op_type for n in after] == ["Conv"], "a layer that feeds one other layer only"
    for name in nodes[node].input[1:]:
        values = onnx.numpy_helper.to_array(tensors[name]).copy()
        values[channel] *= factor
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    name = after[0].input[1]
    values = onnx.numpy_helper.to_array(tensors[name]).copy()
    values[:, channel] /= factor
    tensors[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    return bad


def test_clipping_that_costs_least_cuts_outliers_only() -> None:
    random = np.random.default_rng(0)
    plain = random.uniform(-1, 1, 20_000).astype(np.float32)
    found = least_error_range(plain, levels=256, symmetric=True)
    assert found.high == pytest.approx(1, abs=0.03)
    assert found.low == -found.high
    tailed = np.append(random.normal(size=20_000), [40.0]).astype(np.float32)
    cut = least_error_range(tailed, levels=16, symmetric=False)
    assert cut.high < 30
    assert least_error_range(np.zeros(9), levels=256, symmetric=False).high == 0
    relu = least_error_range(np.abs(plain), levels=256, symmetric=False)
    assert relu.low == 0


def test_images_to_train_on_come_from_the_pool_and_survive_the_disk(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    classes = np.arange(50) % 5
    logits = np.eye(5)[classes]
    made = CalibrationSet.balanced(
        pixels, classes, logits=logits, probe_pixels=pixels[:4], probe_classes=classes[:4],
        preprocess=Preprocess.from_range(0, 1, 3), count=10,
    )  # fmt: skip
    assert (len(made.pixels), len(made.training_pixels)) == (10, 50)
    images, wanted = made.training_batch(np.array([3, 7]))
    np.testing.assert_allclose(images, made.training_pixels[[3, 7]] / 255, rtol=1e-6)
    assert (wanted.argmax(1) == classes[[3, 7]]).all()
    made.save(tmp_path / "c.npz")
    again = CalibrationSet.load(tmp_path / "c.npz")
    np.testing.assert_array_equal(again.training_logits, made.training_logits)


@pytest.mark.parametrize("target", list_targets(), ids=lambda t: t.name)
def test_every_multiplication_runs_in_integers(target, model: onnx.ModelProto, calibration: CalibrationSet) -> None:
    ready = for_target(model, target)
    quantized = quantize_graph(ready, target.scheme, observe_activations(ready, calibration.images()), "min-max")
    found = integer_coverage(quantized, runtime=target.runtime, architecture=target.architecture)
    assert found.share == 1.0
    assert found.floating == ()
    first = weighted_nodes(ready)[0]
    mixed = quantize_graph(
        ready, target.scheme, observe_activations(ready, calibration.images()), "min-max", exclude=[first]
    )
    found = integer_coverage(mixed, runtime=target.runtime, architecture=target.architecture)
    assert found.floating == (first,)
    assert 0 < found.share < 1


def test_no_pair_stands_between_a_layer_and_its_activation(model: onnx.ModelProto, calibration: CalibrationSet) -> None:
    target = find_target("x86")
    ready = for_target(model, target)
    quantized = quantize_graph(ready, target.scheme, observe_activations(ready, calibration.images()), "min-max")
    assert not [node for node in quantized.graph.node if node.op_type == "Relu"]


def test_the_layer_that_suffers_most_is_found_and_kept_float(model: onnx.ModelProto) -> None:
    target = find_target("x86")
    victim = weighted_nodes(model)[1]
    bad = spoiled(model, victim, 3, 3000.0)
    calibration = calibration_for(bad)
    judge, images = ModelComparer(bad, calibration), calibration.images()
    seen = observe_activations(bad, images)
    sensitivities = layer_sensitivities(bad, target.scheme, seen, images, "min-max")
    # The range of its output is set by one channel: the layer that reads it is worst.
    worst = max(sensitivities, key=sensitivities.__getitem__)
    assert worst in weighted_nodes(model)[1:3]
    whole = judge.of(quantize_graph(bad, target.scheme, seen, "min-max"))
    near = whole.distance / 4
    kept = keep_worst_layers(bad, target.scheme, seen, images, "min-max", judge, lambda f: f.distance < near)
    assert kept.holds
    assert 1 <= len(kept.kept) <= 4
    assert kept.kept[0].node == worst
    found = integer_coverage(kept.model, runtime=target.runtime, architecture=target.architecture)
    assert set(found.floating) == {layer.node for layer in kept.kept}
    assert judge.of(kept.model).distance == pytest.approx(kept.fidelity.distance, rel=1e-6)


def test_training_under_rounding_brings_the_answers_back(model: onnx.ModelProto) -> None:
    target = find_target("x86")
    bad = spoiled(model, weighted_nodes(model)[1], 3, 100.0)
    calibration = calibration_for(bad)

    def distance(candidate: onnx.ModelProto) -> float:
        """Mean difference of the class probabilities from the float model's, where it was trained."""
        images, _ = calibration.training_batch(np.arange(len(calibration.training_pixels)))
        both = [run_batched(open_session(m), images.astype(np.float32), batch=1) for m in (bad, candidate)]
        first, second = (np.exp(s - s.max(1, keepdims=True)) for s in both)
        return float(np.abs(first / first.sum(1, keepdims=True) - second / second.sum(1, keepdims=True)).mean())

    seen = observe_activations(bad, calibration.images())
    before = quantize_graph(bad, target.scheme, seen, "min-max")
    trained = train_quantized(bad, target.scheme, calibration, seen, "min-max", steps=100)
    after = quantize_graph(trained, target.scheme, observe_activations(trained, calibration.images()), "min-max")
    assert distance(after) < 0.85 * distance(before)
    shapes = [(t.name, list(t.dims)) for t in bad.graph.initializer]
    assert [(t.name, list(t.dims)) for t in trained.graph.initializer] == shapes
    with pytest.raises(ValueError, match="no images"):
        train_quantized(bad, target.scheme, replace(calibration, training_pixels=np.zeros((0,))), seen, "min-max")
    assert train_quantized(bad, target.scheme, calibration, seen, "min-max", seconds=1e-6, least=10) is None


def test_training_under_rounding_leaves_statistics_of_kept_batch_norms_alone() -> None:
    """A BatchNorm in front of its layer, as DenseNets have it, cannot be folded."""

    import torch

    class Dense(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4)
            self.grow, self.head = torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Linear(8, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            stem = self.stem(images)
            return self.head(torch.cat([stem, self.grow(torch.relu(self.norm(stem)))], 1).mean((2, 3)))

    torch.manual_seed(0)
    network = Dense()
    network(torch.rand(16, *SHAPE))  # statistics of its own
    target = find_target("x86")
    graph = fix_batch(student_to_onnx(network.eval(), SHAPE), 1)
    norm = next(node for node in graph.graph.node if node.op_type == "BatchNormalization")
    calibration = calibration_for(graph)
    seen = observe_activations(graph, calibration.images())
    trained = train_quantized(graph, target.scheme, calibration, seen, "min-max", steps=3)
    assert trained is not None
    before, after = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (graph, trained))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved & set(norm.input[1:3]) and not moved & set(norm.input[3:5])


def test_an_allowed_drop_is_held_or_said_not_to_be(model: onnx.ModelProto) -> None:
    target = find_target("x86")
    bad = spoiled(model, weighted_nodes(model)[1], 3, 1e6)
    calibration = replace(calibration_for(bad), training_pixels=np.zeros((0,), np.uint8))
    loose = quantize_model(bad, target.scheme, calibration)
    assert loose.holds and not loose.kept
    lost = loose.float_agreement - loose.agreement
    assert lost > 0.02
    held = quantize_model(bad, target.scheme, calibration, max_drop=lost / 2)
    assert held.holds and held.kept
    assert held.float_agreement - held.agreement <= lost / 2 + 1e-9
    assert any("layers float" in name for name in held.tried)


def test_training_is_tried_before_layers_are_given_up(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgedafl.quantize import choose

    bad = spoiled(model, weighted_nodes(model)[1], 3, 1e6)
    monkeypatch.setattr(choose, "train_quantized", lambda *a, **k: model)  # as if it had found good weights
    target = find_target("x86")
    found = quantize_model(bad, target.scheme, calibration_for(bad), max_drop=0.005)
    assert found.trained and not found.kept
    assert found.method + ", trained" in found.tried


def test_drops_are_judged_against_fp32() -> None:
    agreements = {"fp32": 0.98, "int8": 0.974}
    assert within_drop(agreements, "int8", 0.006)
    assert not within_drop(agreements, "int8", 0.005)
    assert within_drop(agreements, "int8", None)
    assert within_drop({}, "int8", 0.0)
    assert Fidelity(0.9, 0.1).rank > Fidelity(0.9, 0.2).rank


def test_profiled_nodes_find_their_layer(model: onnx.ModelProto) -> None:
    names = layer_names(model)
    first, second = weighted_nodes(model)[:2]
    assert (names[first], names[second]) == ("stem.0", "blocks.0.conv1")
    add = next(node for node in model.graph.node if node.op_type == "Add")
    assert names[add.name].endswith(" + Add")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    rows = [
        LayerTime(f"{second}_token_5", "QLinearConv", 300.0),
        LayerTime(f"{relu.output[0]}_nchwc", "Conv", 600.0),
        LayerTime("ReorderOutput", "ReorderOutput", 100.0),
    ]
    found = name_layers(rows, names)
    assert [row.layer for row in found] == ["stem.0 + Relu", "blocks.0.conv1", "ReorderOutput"]
    assert [row.share for row in found] == pytest.approx([0.6, 0.3, 0.1])
