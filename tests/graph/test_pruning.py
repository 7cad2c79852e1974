"""Channels that belong together, cut together; what is cut is predicted by what stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.graph.batch import value_shapes
from edgedafl.graph.canonicalize import IMAGE, LOGITS, canonicalize
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.from_module import module_to_onnx
from edgedafl.graph.pruning import ChannelMap, collect_moments, cut, fold_into_weights, rank_channels, trace_channels
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.graph.trainable import TrainableGraph

SHAPE = (3, 8, 8)
FREE = ImageInput(IMAGE, (None, *SHAPE), "FLOAT", "NCHW", SHAPE, None)


def graph_of(module: nn.Module) -> onnx.ModelProto:
    model = module_to_onnx(module.eval(), torch.zeros(2, *SHAPE), input_name=IMAGE, output_name="scores")
    return canonicalize(model, FREE, "scores")


def traced(graph: onnx.ModelProto) -> ChannelMap:
    return trace_channels(graph, value_shapes(graph, SHAPE))


def sizes(channels: ChannelMap) -> list[int]:
    return sorted(len(group) for group in channels.groups)


def halved(graph: onnx.ModelProto, channels: ChannelMap) -> onnx.ModelProto:
    removed = frozenset(int(u) for group in channels.groups for u in group[len(group) // 2 :])
    return cut(graph, channels, removed)


def answers(model: onnx.ModelProto, images: Tensor) -> np.ndarray:
    """From ONNX Runtime: what is cut must be a whole graph to others as well."""
    return run_batched(open_session(model), images.numpy())


def count(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)


class Plain(nn.Module):
    """Convolution, pooling, flattening, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv(x)), 2).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


class Residual(nn.Module):
    """A stream of 8 channels with a block of 6 inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        return self.fc(x.mean((2, 3)))


class Padded(nn.Module):
    """A shortcut without weights: every second pixel, channels padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + self.conv(x))
        return self.fc(x.mean((2, 3)))


class Dense(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(10, 8, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.cat([self.a(x), self.b(x)], 1))
        return self.fc(torch.relu(self.c(x)).amax((2, 3)))


class Mobile(nn.Module):
    """An expansion, a depthwise convolution with its gate, a projection; BatchNorms between."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.deep, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 6, 1)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze, self.excite, self.fc = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.deep(F.relu6(self.norm(F.relu6(self.up(x))))))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.fc(torch.relu(self.down(x)).mean((2, 3)))


class Grouped(nn.Module):
    """Groups of channels mix among themselves: they stay."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


class LayerNormed(nn.Module):
    """A norm over all channels keeps the stream, not what is inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8)
        self.up, self.down, self.fc = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.fc(x.mean(1))


CASES: list[tuple[type[nn.Module], list[int]]] = [
    (Plain, [8, 12]),
    (Residual, [6, 8]),
    (Padded, [8, 8]),
    (Dense, [4, 6, 8]),
    (Mobile, [4, 6, 8]),
    (Grouped, []),
    (LayerNormed, [12]),
]


@pytest.mark.parametrize(("build", "groups"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_channels_are_grouped_and_half_of_each_group_can_be_cut(build: type[nn.Module], groups: list[int]) -> None:
    graph = graph_of(build())
    channels = traced(graph)
    assert sizes(channels) == groups
    smaller = halved(graph, channels)
    images = torch.randn(5, *SHAPE)
    assert answers(smaller, images).shape == (5, 4)
    assert np.allclose(answers(smaller, images), OnnxModule(smaller)(images).numpy(), atol=1e-5)
    assert count(smaller) < count(graph) or not groups


@pytest.mark.parametrize("build", [case[0] for case in CASES], ids=lambda v: v.__name__)
def test_cutting_nothing_changes_nothing(build: type[nn.Module]) -> None:
    module = build().eval()
    graph = graph_of(module)
    images = torch.randn(5, *SHAPE)
    same = cut(graph, traced(graph), frozenset())
    assert np.allclose(answers(same, images), module(images).detach().numpy(), atol=1e-5)


def doubled(layer: nn.Conv2d | nn.Linear) -> None:
    """Its second half of outputs follow from the first half, up to a factor."""
    with torch.no_grad():
        half = len(layer.weight) // 2
        factors = torch.linspace(0.5, 2, half)
        layer.weight[half:] = layer.weight[:half] * factors.reshape(-1, *[1] * (layer.weight.ndim - 1))
        layer.bias[half:] = layer.bias[:half] * factors


@pytest.mark.parametrize("build", [Plain, Residual, Dense])
def test_channels_that_follow_from_others_are_cut_without_loss(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = build()
    layers = [layer for name, layer in module.named_children() if name not in ("fc", "fc2", "b")]
    for layer in layers:
        doubled(layer)
    if build is Residual:  # what is added to the stream must follow the same rule
        doubled(module.b)
    graph = graph_of(module)
    channels = traced(graph)
    images = torch.randn(64, *SHAPE)
    moments = collect_moments(OnnxModule(graph, keep=channels.values_read), channels, images.split(32))
    ranks = rank_channels(graph, channels, moments)
    spared = 6 if build is Dense else 0  # b of Dense was left as it is
    removed = frozenset(int(u) for r in ranks if len(r.units) != spared for u in r.units[len(r.units) // 2 :])
    smaller = cut(fold_into_weights(graph, channels, moments, removed), channels, removed)
    expected = answers(graph, images)
    error = np.abs(answers(smaller, images) - expected).max() / np.abs(expected).max()
    plain = np.abs(answers(cut(graph, channels, removed), images) - expected).max() / np.abs(expected).max()
    assert error < 2e-3 < plain


def test_a_constant_channel_moves_into_the_bias() -> None:
    module = Plain()
    with torch.no_grad():
        module.fc1.weight[3] = 0
        module.fc1.bias[3] = 2.0
    graph = graph_of(module)
    channels = traced(graph)
    images = torch.randn(64, *SHAPE)
    moments = collect_moments(OnnxModule(graph, keep=channels.values_read), channels, [images])
    units = next(group for group in channels.groups if len(group) == 12)
    removed = frozenset([int(units[3])])
    smaller = cut(fold_into_weights(graph, channels, moments, removed), channels, removed)
    assert np.allclose(answers(smaller, images), answers(graph, images), atol=2e-3)


def nhwc(name: str = "x") -> onnx.ModelProto:
    """Channels last, a fixed batch of one, a product and a sum instead of a Gemm, half precision."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 13]> g (float16[1,8,8,3] {name}) => (float16[1,4] p) {{
        t = Transpose<perm=[0,3,1,2]>({name})  c = Conv<strides=[2,2]>(t, k)  r = Relu(c)
        b = Transpose<perm=[0,2,3,1]>(r)  f = Reshape(b, shape)  m = MatMul(f, w)  s = Add(m, v)
        q = Relu(s) l = MatMul(q, u) p = Softmax(l) }}"""
    )
    random = np.random.default_rng(0)
    arrays = {
        "k": random.normal(size=(6, 3, 2, 2)), "w": random.normal(size=(96, 10)) / 10, "v": random.normal(size=10),
        "u": random.normal(size=(10, 4)),
    }  # fmt: skip
    for key, value in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float16), key))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 96], np.int64), "shape"))
    return model


@pytest.mark.parametrize("name", ["x", IMAGE])
def test_a_graph_of_another_layout_and_type_takes_any_batch_of_float_images(name: str) -> None:
    model = nhwc(name)
    graph = canonicalize(model, ImageInput(name, (1, 8, 8, 3), "FLOAT16", "NHWC", SHAPE, 1), "l")
    images = torch.rand(5, *SHAPE)
    session = open_session(model)
    rows = [session.run(None, {name: x.permute(1, 2, 0)[None].numpy().astype(np.float16)})[0] for x in images]
    found = answers(graph, images)
    shares = np.exp(found) / np.exp(found).sum(1, keepdims=True)
    assert np.abs(shares - np.concatenate(rows)).max() < 2e-3
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == [IMAGE, LOGITS]
    channels = traced(graph)
    assert sizes(channels) == [6, 10]
    assert answers(halved(graph, channels), images).shape == (5, 4)


def test_a_trained_graph_is_written_with_its_new_weights() -> None:
    module = TrainableGraph(graph_of(Mobile()))
    images = torch.randn(4, *SHAPE)
    before = module(images).detach()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        module(images).square().sum().backward()
        optimizer.step()
    after = module(images).detach()
    assert float((after - before).abs().max()) > 1e-3
    assert np.allclose(answers(module.to_onnx(), images), after.numpy(), atol=1e-5)
