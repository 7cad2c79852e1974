"""Weights of few integers in fewer bytes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgedafl.graph.constants import computed_constants
from edgedafl.graph.coverage import integer_coverage
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.facts import facts_of
from edgedafl.graph.packed import WEIGHT_BITS, largest_integer, packed
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import integer_model
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target
from tests.quantize.test_rounding import SHAPE, images

LAYERS = """<ir_version: 8, opset_import: ["": 13]> g (float[1] x) => (float[40,25] a, float[30,20,3,3] b) <float s = {1}> {
    first = DequantizeLinear(w1, s)  a = Mul(first, x)  second = DequantizeLinear(w2, s)  b = Mul(second, x)
}"""


def graph_of(largest: int, seed: int = 0) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Two weights whose integers span -largest to largest."""
    model, random = onnx.parser.parse_model(LAYERS), np.random.default_rng(seed)
    weights = {}
    for name, shape in (("w1", (40, 25)), ("w2", (30, 20, 3, 3))):
        weights[name] = random.integers(-largest, largest + 1, shape).astype(np.int8)
        weights[name].reshape(-1)[:2] = -largest, largest
        model.graph.initializer.append(numpy_helper.from_array(weights[name], name))
    return model, weights


@pytest.mark.parametrize("bits", WEIGHT_BITS[1:])
def test_what_comes_out_is_what_went_in_and_takes_its_bits(bits: float) -> None:
    model, weights = graph_of(largest_integer(bits))
    small = packed(model)
    onnx.checker.check_model(small)
    values = [value for value in computed_constants(small).values() if value.dtype == np.int8]
    for wanted in weights.values():
        assert any(v.shape == wanted.shape and np.array_equal(v, wanted) for v in values)
    count = sum(value.size for value in weights.values())
    saved = len(model_bytes(model)) - len(model_bytes(small))
    assert 0 < count * (1 - bits / 8) - saved < 700, "less than 700 bytes go to shapes and nodes"
    given = np.array([1.5], np.float32)
    for wanted, found in zip(*(open_session(m).run(None, {"x": given}) for m in (model, small)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert abs(facts_of(small).parameters - facts_of(model).parameters) < 130, "but for the integers' own table"


def test_weights_of_eight_bits_and_short_ones_stay() -> None:
    model, _ = graph_of(127)
    assert model_bytes(packed(model)) == model_bytes(model)
    short = onnx.parser.parse_model(LAYERS)
    for name in ("w1", "w2"):
        short.graph.initializer.append(numpy_helper.from_array(np.ones((4, 5), np.int8), name))
    assert model_bytes(packed(short)) == model_bytes(short)


def test_each_base_has_numbers_of_its_own() -> None:
    model, _ = graph_of(7)
    wide = np.random.default_rng(1).integers(-38, 39, (30, 20, 3, 3)).astype(np.int8)
    wide.reshape(-1)[0] = 38
    next(t for t in model.graph.initializer if t.name == "w2").CopyFrom(numpy_helper.from_array(wide, "w2"))
    small = packed(model)
    assert [node.op_type for node in small.graph.node].count("Mod") == 2
    assert any(np.array_equal(value, wide) for value in computed_constants(small).values())


def test_bits_are_integers_of_odd_bases() -> None:
    assert [largest_integer(bits) for bits in WEIGHT_BITS] == [127, 63, 38, 25, 18, 13, 10, 8, 7, 6, 5, 4, 3]
    for bits in WEIGHT_BITS[1:]:
        digits, largest = round(64 / bits), largest_integer(bits)
        assert (2 * largest + 1) ** digits <= 2**63 < (2 * largest + 3) ** digits
        assert (2 * largest + 1) ** (digits + 1) > 2**63, "no other number of digits holds as many"
    for wrong in (2.8, 8.1, float("nan")):
        with pytest.raises(ValueError, match=r"between 2\.9 and 8"):
            largest_integer(wrong)


def test_the_same_kernels_run_on_the_same_integers() -> None:
    import torch
    from torch import nn

    from edgedafl.export import student_to_onnx

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 7),
    )  # fmt: skip
    target, given = find_target("x86"), images(32, 0)
    model = fix_batch(for_target(student_to_onnx(net, SHAPE), target), 1)
    integer = integer_model(model, target.scheme, given, given, 4)
    small = packed(integer)
    assert len(model_bytes(small)) < 0.65 * len(model_bytes(integer))
    np.testing.assert_array_equal(*(run_batched(open_session(m), given, batch=1) for m in (integer, small)))
    for architecture in ("x86_64", "aarch64"):
        coverage = integer_coverage(small, runtime="onnxruntime", architecture=architecture)
        assert coverage.share == 1.0
