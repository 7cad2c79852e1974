"""Integer students: calibration, schemes, methods."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgedafl.errors import UsageError
from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.packed import packed
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import Preprocess
from edgedafl.quantize import METHODS, CalibrationSet, Fidelity, Quantized, integer_model, quantize_model
from edgedafl.runs import RunDirectory
from edgedafl.stages.graphs import for_target
from edgedafl.stages.quantize import _within
from edgedafl.students import build_student
from edgedafl.targets import Target, find_target, list_targets
from tests.conftest import EXAMPLE, edgedafl, exported_run

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return student_to_onnx(build_student("resnet8:0.5", SHAPE, 5).module, SHAPE)


@pytest.fixture(scope="module")
def calibration(model: onnx.ModelProto) -> CalibrationSet:
    random = np.random.default_rng(0)
    preprocess = Preprocess.from_mean_std((0.5,), (0.25,), 3)
    pixels = random.integers(0, 256, (300, *SHAPE), dtype=np.uint8)
    probes = random.integers(0, 256, (100, *SHAPE), dtype=np.uint8)
    blank = CalibrationSet(pixels, probes, np.zeros(100, np.int64), preprocess)
    classes = run_batched(open_session(model), blank.probe_images()).argmax(1)
    return CalibrationSet(pixels[:64], probes, classes, preprocess)


@pytest.mark.parametrize("target", list_targets(), ids=lambda t: t.name)
def test_each_target_gets_its_own_scheme(target: Target, model: onnx.ModelProto, calibration: CalibrationSet) -> None:
    found = quantize_model(for_target(model, target), target.scheme, calibration)
    assert found.agreement >= max(max(found.tried.values()) - 0.01, 0.9)
    near = found.tried[METHODS[0]] > found.float_agreement - 0.01  # none of the others could be clearly better
    assert set(found.tried) == ({METHODS[0]} if near else set(METHODS))
    assert found.float_agreement == 1.0
    graph = found.model.graph
    onnx.checker.check_model(found.model, full_check=True)
    initializers = {t.name: t for t in graph.initializer}
    zero_points = [initializers[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"]
    types = {onnx.TensorProto.DataType.Name(t.data_type).lower() for t in zero_points}
    assert types == {target.scheme.activations}
    if target.scheme.symmetric_activations:
        assert all(not onnx.numpy_helper.to_array(t).any() for t in zero_points)
    weights = [t for t in graph.initializer if len(t.dims) == 4]
    assert {t.data_type for t in weights} == {onnx.TensorProto.INT8}
    kinds = {t.name: t.data_type for t in graph.initializer}
    kinds |= {n.output[0]: n.attribute[0].i for n in graph.node if n.op_type == "Cast"}
    biases = [
        n for n in graph.node if n.op_type == "DequantizeLinear" and kinds.get(n.input[0]) == onnx.TensorProto.INT32
    ]
    assert bool(biases) == target.scheme.quantize_bias
    halves = {n.input[1] for n in graph.node if n.op_type == "QuantizeLinear"}
    assert all(
        (initializers[name].data_type == onnx.TensorProto.FLOAT16) == (target.scheme.remainder == "float16")
        for name in halves
    )
    assert found.model.ir_version <= target.ir_version
    assert found.model.opset_import[0].version == target.opset


def test_jetson_gets_no_quantized_outputs_of_weighted_layers(
    model: onnx.ModelProto, calibration: CalibrationSet
) -> None:
    target = find_target("jetson")
    graph = quantize_model(for_target(model, target), target.scheme, calibration).model.graph
    consumers = {name: node.op_type for node in graph.node for name in node.input}
    after = [consumers[n.output[0]] for n in graph.node if n.op_type == "Conv"]
    assert set(after) <= {"Relu", "Add"}


def test_calibration_is_balanced_over_classes() -> None:
    pixels = np.arange(1000, dtype=np.uint8).reshape(1000, 1, 1, 1)
    classes = np.array([0] * 900 + [1] * 60 + [2] * 40)
    chosen = CalibrationSet.balanced(
        np.broadcast_to(np.arange(1000).reshape(-1, 1, 1, 1) % 256, (1000, 1, 1, 1)).astype(np.uint8), classes,
        probe_pixels=pixels[:5], probe_classes=classes[:5], preprocess=Preprocess.from_range(0, 1, 1), count=120,
    )  # fmt: skip
    assert len(chosen.pixels) == 120
    counts = Counter(classes[int(np.flatnonzero((np.arange(1000) % 256) == v)[0])] for v in chosen.pixels.reshape(-1))
    assert sum(counts.values()) == 120


def test_calibration_takes_rare_classes_whole() -> None:
    classes = np.array([0] * 900 + [1] * 60 + [2] * 40)
    pixels = np.zeros((1000, 3, 1, 1), np.uint8)
    pixels[np.arange(1000), classes] = 255
    chosen = CalibrationSet.balanced(
        pixels, classes, probe_pixels=pixels[:5], probe_classes=classes[:5],
        preprocess=Preprocess.from_range(0, 1, 3), count=150,
    )  # fmt: skip
    counts = (chosen.pixels[:, :, 0, 0] > 0).sum(0)
    assert counts.tolist() == [55, 55, 40]


def test_calibration_sets_survive_the_disk(calibration: CalibrationSet, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    calibration.save(path)
    again = CalibrationSet.load(path)
    assert again.digest == calibration.digest
    np.testing.assert_allclose(again.images(), calibration.images())
    path.write_bytes(b"junk")
    with pytest.raises(UsageError, match="not a calibration set"):
        CalibrationSet.load(path)


def test_an_export_takes_the_integers_that_are_there(tmp_path: Path, tiny_onnx: Path) -> None:
    run = exported_run(tmp_path / "run", tiny_onnx, "rpi5")
    asked = ("--max-drop", "3%", "--weight-bits", "5")
    assert edgedafl("quantize", run, *asked).code == 0
    model = (run / "models" / "rpi5" / "int8.onnx").read_bytes()
    assert edgedafl("export", run).code == 0
    record = RunDirectory(run).record()
    assert record.quantized is not None
    assert (record.quantized.max_drop, record.quantized.weight_bits) == (0.03, 5.0)
    assert (run / "models" / "rpi5" / "int8.onnx").read_bytes() == model
    card = (run / "bundles" / "rpi5" / "model-card.md").read_text()
    assert "with weights of 5.0 bits on average" in card


def test_what_an_estimate_was_off_by_is_taken_from_the_bits() -> None:
    target = find_target("rpi4")
    graph = fix_batch(for_target(onnx.load(EXAMPLE / "teacher.onnx"), target), 1)
    images = np.random.default_rng(0).normal(size=(32, 1, 32, 32)).astype(np.float32)

    def quantized(weight_bits: float) -> Quantized:
        model = integer_model(graph, target.scheme, images, images, weight_bits)
        return Quantized(model, "robust", Fidelity(1.0, 0.0), 1.0, {})

    limit = 43_000  # 5.0 bits
    found, bits = _within(quantized, 5.4, limit, target)
    assert 4.5 < bits < 5.1
    assert 0.97 * limit < len(model_bytes(packed(found.model))) <= limit
    assert _within(quantized, 5.4, None, target)[1] == 5.4
