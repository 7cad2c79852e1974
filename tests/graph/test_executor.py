"""The executor against ONNX Runtime and torch autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedafl.errors import UnsupportedModelError
from edgedafl.graph.executor import OnnxModule, unsupported_nodes
from edgedafl.graph.runtime import open_session
from edgedafl.students import build_student
from tests.conftest import LINEAR, ROOT, export, tiny_text


def run_both(text: str, *arrays: np.ndarray, opset: int = 18, contrib: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """One graph of inputs x0, x1, ... -> y through both runtimes."""
    extra = ', "com.microsoft": 1' if contrib else ""
    inputs = ", ".join(f"float[{','.join(map(str, a.shape))}] x{i}" for i, a in enumerate(arrays))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}{extra}]> g ({inputs}) => (float y) {{ {text} }}'
    )
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    names = [f"x{i}" for i in range(len(arrays))]
    expected = open_session(model).run(None, dict(zip(names, arrays, strict=True)))[0]
    found = OnnxModule(model)(*[torch.from_numpy(a) for a in arrays])
    return np.asarray(expected), found.detach().numpy()


def rand(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


ONE_INPUT = {
    "softmax over the last axis": ("y = Softmax(x0)", rand(2, 3, 4), 18),
    "softmax coerced to two dimensions before opset 13": ("y = Softmax<axis=1>(x0)", rand(2, 3, 4), 11),
    "log-softmax coerced at axis 2": ("y = LogSoftmax<axis=2>(x0)", rand(2, 3, 4, 5), 11),
    "clip by attribute": ("y = Clip<min=-0.5, max=0.5>(x0)", rand(3, 4), 6),
    "max-pool with ceil": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x0)", rand(1, 2, 8, 8), 18),
    "max-pool with asymmetric pads": ("y = MaxPool<kernel_shape=[3,3], pads=[0,1,2,1]>(x0)", rand(1, 2, 8, 8), 18),
    "max-pool same-lower": ("y = MaxPool<kernel_shape=[2,2], auto_pad=\"SAME_LOWER\">(x0)", rand(1, 2, 7, 7), 18),
    "average-pool without pads counted": ("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x0)", rand(1, 2, 8, 8), 18),
    "average-pool with pads counted": ("y = AveragePool<kernel_shape=[3,3], pads=[1,0,1,2], count_include_pad=1>(x0)", rand(1, 2, 8, 8), 18),
    "global pools": ("a = GlobalAveragePool(x0) b = GlobalMaxPool(x0) y = Add(a, b)", rand(2, 3, 5, 4), 18),
    "local response normalisation": ("y = LRN<size=5, alpha=0.5, beta=0.75, bias=2.0>(x0)", rand(2, 7, 4, 4), 18),
    "flatten at a negative axis": ("y = Flatten<axis=-1>(x0)", rand(2, 3, 4), 13),
    "transpose": ("y = Transpose<perm=[0,2,3,1]>(x0)", rand(2, 3, 4, 5), 18),
    "depth to space": ("y = DepthToSpace<blocksize=2>(x0)", rand(1, 8, 3, 3), 18),
    "depth to space, column-row-depth": ("y = DepthToSpace<blocksize=2, mode=\"CRD\">(x0)", rand(1, 8, 3, 3), 18),
    "space to depth": ("y = SpaceToDepth<blocksize=2>(x0)", rand(1, 2, 4, 4), 18),
    "reduce by attribute": ("y = ReduceMean<axes=[2,3], keepdims=0>(x0)", rand(2, 3, 4, 5), 13),
    "reduce all": ("y = ReduceSum(x0)", rand(2, 3), 18),
    "hard sigmoid and swish": ("a = HardSigmoid(x0) b = HardSwish(x0) y = Mul(a, b)", rand(3, 4), 18),
    "leaky relu, elu, selu": ("a = LeakyRelu<alpha=0.2>(x0) b = Elu(a) y = Selu(b)", rand(3, 4), 18),
    "pads by attribute": ("y = Pad<pads=[0,0,1,2,0,0,0,1], mode=\"reflect\">(x0)", rand(1, 2, 5, 5), 2),
    "shape arithmetic stays on the host": (
        "s = Shape(x0) one = Constant<value_ints=[1]>() zero = Constant<value_ints=[0]>() n = Gather(s, zero) "
        "m = Constant<value_ints=[-1]>() t = Concat<axis=0>(n, m) y = Reshape(x0, t)",
        rand(2, 3, 4),
        18,
    ),
    "split in unequal parts": ("a, b, c = Split<axis=1, num_outputs=3>(x0) y = Concat<axis=1>(c, a, b)", rand(2, 7), 18),
    "slice backwards": (
        "st = Constant<value_ints=[-1]>() en = Constant<value_ints=[-9]>() ax = Constant<value_ints=[1]>() "
        "sp = Constant<value_ints=[-2]>() y = Slice(x0, st, en, ax, sp)",
        rand(2, 7),
        18,
    ),
    "gelu": ("y = Gelu<approximate=\"tanh\">(x0)", rand(3, 4), 20),
    "dynamic quantisation": (
        "q, s, z = DynamicQuantizeLinear(x0) y = DequantizeLinear(q, s, z)", rand(4, 5), 18,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_INPUT)
def test_operator_agrees_with_onnx_runtime(case: str) -> None:
    text, x, opset = ONE_INPUT[case]
    expected, found = run_both(text, x, opset=opset)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("rule", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("scale", [0.5, 1.7, 2.0])
def test_resize_agrees_with_onnx_runtime(mode: str, rule: str, scale: float) -> None:
    text = (
        f"sc = Constant<value_floats=[1.0,1.0,{scale},{scale}]>() "
        f'y = Resize<mode="{mode}", coordinate_transformation_mode="{rule}">(x0, , sc)'
    )
    expected, found = run_both(text, rand(1, 2, 6, 5))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_gemm_with_all_its_factors() -> None:
    text = "y = Gemm<alpha=0.5, beta=2.0, transA=1, transB=1>(x0, x1, x2)"
    expected, found = run_both(text, rand(4, 2), rand(3, 4), rand(2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "attributes",
    [
        "pads=[1,1,1,1]",
        "strides=[2,2], pads=[0,1,2,0]",
        "dilations=[2,2], group=2",
        'auto_pad="SAME_UPPER", strides=[2,2]',
    ],
)
def test_convolution_forms(attributes: str) -> None:
    weight = rand(4, 1, 3, 3) if "group" in attributes else rand(4, 2, 3, 3)
    expected, found = run_both(f"y = Conv<{attributes}>(x0, x1, x2)", rand(2, 2, 9, 9), weight, rand(4))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        "strides=[2,2], pads=[1,1,1,1]",
        "strides=[2,2], output_padding=[1,1]",
        "strides=[2,2], output_shape=[9,10]",
        'strides=[2,2], auto_pad="SAME_LOWER"',
    ],
)
def test_transposed_convolution_forms(attributes: str) -> None:
    expected, found = run_both(
        f"y = ConvTranspose<{attributes}>(x0, x1, x2)", rand(1, 3, 5, 5), rand(3, 2, 3, 3), rand(2)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_normalisation_layers() -> None:
    text = "a = InstanceNormalization(x0, x1, x2) b = BatchNormalization(a, x1, x2, x2, x3) y = LayerNormalization<axis=-1>(b, x4)"
    scale, positive = rand(3), np.abs(rand(3)) + 0.5
    expected, found = run_both(text, rand(2, 3, 4, 5), scale, rand(3), positive, rand(5))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_batch_normalisation_in_training_mode_is_refused() -> None:
    text = "y = BatchNormalization<training_mode=1>(x0, x1, x1, x1, x2)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> g (float[2,3,4,4] x0, float[3] x1, float[3] x2) => (float[2,3,4,4] y) {{ {text} }}'
    )
    with pytest.raises(UnsupportedModelError, match="training_mode"):
        OnnxModule(model)(torch.zeros(2, 3, 4, 4), torch.zeros(3), torch.ones(3))


def test_quantized_model_passes_a_gradient() -> None:
    text = (
        "s = Constant<value_float=0.05>() z = Constant<value = int8 {3}>() "
        "q = QuantizeLinear(x0, s, z) y = DequantizeLinear(q, s, z)"
    )
    x = rand(4, 5)
    expected, found = run_both(text, x)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> g (float[4,5] x0) => (float[4,5] y) {{ {text} }}'
    )
    image = torch.from_numpy(x).requires_grad_()
    OnnxModule(model)(image).sum().backward()
    assert torch.equal(image.grad, torch.ones(4, 5))


def test_unknown_operators_are_named_before_running() -> None:
    model = tiny_text("f = NonZero(image) scores = Gemm<transB=1>(f, w, b)")
    assert unsupported_nodes(model.graph) == ["NonZero 'f'"]
    with pytest.raises(UnsupportedModelError, match="NonZero"):
        OnnxModule(model)


def test_branches_on_constants_are_followed() -> None:
    text = """
    c = Constant<value = bool {1}>()
    t = If (c) <then_branch = a () => (p) { p = Relu(x0) }, else_branch = e () => (n) { n = Neg(x0) }>
    y = Identity(t)
    """
    expected, found = run_both(text, rand(3, 3))
    np.testing.assert_allclose(found, expected)


def test_fused_operators_of_onnx_runtime() -> None:
    text = 'y = com.microsoft.FusedConv<activation="Relu", pads=[1,1,1,1]>(x0, x1, x2)'
    expected, found = run_both(text, rand(1, 2, 5, 5), rand(4, 2, 3, 3), rand(4), contrib=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


NETS = {
    "lenet5": ("lenet5", (1, 32, 32)),
    "resnet8": ("resnet8", (3, 32, 32)),
    "mobilenetv2": ("mobilenetv2:0.25", (3, 32, 32)),
}


@pytest.mark.parametrize("net", NETS)
def test_input_gradients_equal_autograd(net: str, tmp_path: Path) -> None:
    name, shape = NETS[net]
    module = build_student(name, shape, 5).module.double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    path = export(module.float(), tmp_path / "net.onnx", shape)
    imported = OnnxModule(onnx.load(path), dtype=torch.float64)
    x = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    module.double()(x).square().sum().backward()
    imported(z).square().sum().backward()
    error = (x.grad - z.grad).abs().max() / x.grad.abs().max()
    assert error <= 1e-4


FOREIGN = sorted((ROOT.parent / "shared" / "models").rglob("*.onnx"))
LIGHT = sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("path", [*FOREIGN, *LIGHT], ids=lambda p: p.stem)
def test_third_party_classifier_agrees_with_onnx_runtime(path: Path) -> None:
    module = OnnxModule(onnx.load(path)).eval()
    session = open_session(path)
    feed = session.get_inputs()[0]
    shape = [side if isinstance(side, int) else 1 for side in feed.shape]
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = np.asarray(session.run([module.output_names[0]], {feed.name: x})[0])
    image = torch.from_numpy(x).requires_grad_()
    found = module(image)
    found.sum().backward()
    assert np.abs(expected - found.detach().numpy()).max() <= 1e-4 * np.abs(expected).max()
    assert torch.isfinite(image.grad).all()


def test_linear_case_by_hand() -> None:
    model = tiny_text(LINEAR)
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    x = rand(2, 1, 16, 16)
    found = OnnxModule(model)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, x.reshape(2, -1) @ weight.T + [0.1, 0, -0.1], rtol=1e-4, atol=1e-5)
