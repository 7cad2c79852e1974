"""int8 activations as uint8: another type, the same answers."""

import numpy as np
import onnx
import pytest

from edgedafl.graph.edit import model_bytes
from edgedafl.graph.runtime import open_session
from edgedafl.quantize import observe_activations, quantize_graph, with_unsigned_activations
from edgedafl.targets import find_target

NETWORK = """
<ir_version: 8, opset_import: ["": 18]>
network (float[1,3,16,16] image) => (float[1,10] scores)
{
    a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (image, w1, b1)
    b = Relu(a)
    c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (b, w2, b2)
    d = Add(b, c)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    scores = Gemm <transB = 1> (f, w3, b3)
}
"""


@pytest.fixture(scope="module")
def signed() -> onnx.ModelProto:
    model, random = onnx.parser.parse_model(NETWORK), np.random.default_rng(0)
    shapes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,), "w3": (10, 16), "b3": (10,)}
    for name, shape in shapes.items():
        values = 0.3 * random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    images = random.random((16, 3, 16, 16), np.float32)
    return quantize_graph(model, find_target("rpi4").scheme, observe_activations(model, images), "min-max")


def types_of(model: onnx.ModelProto, operator: str) -> list[int]:
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return [stored[node.input[2]] for node in model.graph.node if node.op_type == operator and len(node.input) > 2]


def test_answers_stay_and_weights_stay_signed(signed: onnx.ModelProto) -> None:
    changed = with_unsigned_activations(signed)
    image = np.random.default_rng(1).random((1, 3, 16, 16), np.float32)
    scores = [open_session(m, optimize=False).run(None, {"image": image})[0] for m in (signed, changed)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert set(types_of(signed, "QuantizeLinear")) == {onnx.TensorProto.INT8}
    assert set(types_of(changed, "QuantizeLinear")) == {onnx.TensorProto.UINT8}
    pixels = [t.data_type for t in changed.graph.initializer if len(t.dims) == 4]
    assert pixels == [onnx.TensorProto.INT8] * 2


def test_a_graph_without_int8_stays(signed: onnx.ModelProto) -> None:
    changed = with_unsigned_activations(signed)
    assert model_bytes(with_unsigned_activations(changed)) == model_bytes(changed)


def test_both_factors_of_a_product_of_activations_change() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18]>
        square (float[4,4] x) => (float[4,4] y) <float s = {0.1}, int8 z = {5}>
        {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            t = Transpose(d)
            q2 = QuantizeLinear(t, s, z)
            d2 = DequantizeLinear(q2, s, z)
            y = MatMul(d, d2)
        }
    """)
    changed = with_unsigned_activations(model)
    assert types_of(changed, "QuantizeLinear") == types_of(changed, "DequantizeLinear") == [onnx.TensorProto.UINT8] * 2
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    one, other = (open_session(m, optimize=False).run(None, {"x": x})[0] for m in (model, changed))
    np.testing.assert_array_equal(one, other)
