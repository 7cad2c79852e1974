"""What is left of a network is fitted to what the whole one made."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgedafl.graph.batch import value_shapes
from edgedafl.graph.canonicalize import IMAGE, LOGITS
from edgedafl.graph.compact import compact
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.from_module import module_to_onnx
from edgedafl.graph.moments import batch_norm_moments
from edgedafl.graph.pruning import (
    Costs,
    collect_moments,
    cut,
    find_movements,
    fold_into_weights,
    layer_of,
    narrowed,
    rank_channels,
    refit,
    trace_channels,
    width_path,
)
from edgedafl.graph.pruning.saturation import Bounds, activation_bounds
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.teachers import TeacherOptions, load_teacher
from tests.conftest import export

SHAPE = (3, 16, 16)
PIXELS = TeacherOptions(input_range=(0.0, 1.0))


class Net(nn.Module):
    """A residual block, a depthwise layer, squeeze and excitation, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(24, 24, 3, 2, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 8, 1), nn.ReLU(), nn.Conv2d(8, 24, 1), nn.Sigmoid()
        )
        self.two = nn.Sequential(nn.Conv2d(24, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.aside = nn.Sequential(nn.Conv2d(16, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.deep(self.one(x))
        y = self.two(y * self.gate(y)) + self.aside(x)
        return self.head(torch.relu(y).mean((2, 3)))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(0)
    net = Net()
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(64, *SHAPE))
    return load_teacher(str(export(net.eval(), tmp_path_factory.mktemp("net") / "net.onnx", SHAPE)), PIXELS)


def cut_to(graph: onnx.ModelProto, share: float, images: torch.Tensor):
    """Channels, units that are gone, and the cut graph."""
    channels = trace_channels(graph, value_shapes(graph, SHAPE))
    moments = collect_moments(OnnxModule(graph), channels, [images])
    rankings = rank_channels(graph, channels, moments)
    removed = frozenset(u for r in rankings for u in r.units[max(1, int(len(r.units) * share)) :].tolist())
    return channels, removed, cut(fold_into_weights(graph, channels, moments, removed), channels, removed)


def error(module: OnnxModule, whole: OnnxModule, images: torch.Tensor) -> float:
    with torch.no_grad():
        wanted, found = whole.run({IMAGE: images})[LOGITS], module.run({IMAGE: images})[LOGITS]
    return float((found - wanted).square().mean() / wanted.var())


def test_layers_that_are_fitted_in_turn_answer_as_the_whole_network(teacher) -> None:
    graph = teacher.network()
    images, unseen = torch.rand(256, *SHAPE), torch.rand(64, *SHAPE)
    channels, removed, smaller = cut_to(graph, 0.35, images)
    whole, student = OnnxModule(graph), OnnxModule(smaller)
    before = error(student, whole, unseen)
    changed = refit(whole, student, smaller, channels, removed, images)
    layers = [node for node in smaller.graph.node if layer_of(node, student) is not None]
    assert len(layers) == 8 and changed >= 4
    assert error(student, whole, unseen) < 0.75 * before


class Block(nn.Module):
    """Two pointwise layers, a branch beside them or not, and an activation behind the sum."""

    def __init__(self, activation: nn.Module, shift: float, *, residual: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 6, 1)
        self.two.bias.data += shift  # type: ignore[union-attr]
        self.aside = nn.Conv2d(3, 6, 1) if residual else None
        self.activation = activation
        for layer in (self.two, self.aside) if residual else (self.two,):
            layer.weight.data *= 8  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(torch.relu(self.one(x)))
        y = y if self.aside is None else y + self.aside(x)
        return self.activation(y).mean((2, 3))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("activation", "shift"), [(nn.ReLU(), -5.0), (nn.ReLU6(), -4.0), (nn.Hardswish(), -6.0), (nn.Hardsigmoid(), -4.0)]
)
def test_errors_beyond_the_bounds_of_an_activation_hardly_count(
    activation: nn.Module, shift: float, residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    images, unseen = torch.randn(256, *SHAPE), torch.randn(64, *SHAPE)
    graph = _portable(Block(activation, shift, residual=residual).eval())
    channels, removed, smaller = cut_to(graph, 0.4, images)
    behind = [n.output[0] for n in graph.graph.node if n.op_type in ("Relu", "Clip", "HardSwish", "HardSigmoid")][-1]
    whole = OnnxModule(graph, keep=[behind])

    def missed() -> float:
        """Error of what the activation makes, as a share of its variance."""
        student = OnnxModule(smaller, keep=[behind])
        refit(whole, student, smaller, channels, removed, images)
        with torch.no_grad():
            wanted, found = whole.run({IMAGE: unseen})[behind], student.run({IMAGE: unseen})[behind]
        return float((found - wanted).square().mean() / wanted.var())

    with_bounds = missed()
    monkeypatch.setattr(sys.modules[refit.__module__], "activation_bounds", lambda graph: {})
    assert with_bounds < 0.95 * missed()


def test_bounds_are_those_of_activations_that_alone_read_a_value() -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x, float limit) => (float[1,2] y, float[1,2] e)
        <float[2,2] w = {1, 2, 3, 4}, float low = {-1}, float high = {6}> {
        a = MatMul(x, w)  b = Clip(a, low, high)  c = MatMul(b, w)  d = Relu(c)  e = MatMul(d, w)  f = HardSigmoid(e)
        g = MatMul(f, w)  h = Relu(g)  i = HardSigmoid<alpha = 0.0>(h)  j = Add(g, i)  k = MatMul(j, w)
        y = Clip(k, low, limit) }"""
    found = activation_bounds(onnx.parser.parse_model(text))
    assert found == {"a": Bounds(-1.0, 6.0), "c": Bounds(0.0, math.inf)}


def test_nothing_cut_is_nothing_changed(teacher) -> None:
    graph = teacher.network()
    channels = trace_channels(graph, value_shapes(graph, SHAPE))
    student, whole = OnnxModule(graph), OnnxModule(graph)
    refit(whole, student, graph, channels, frozenset(), torch.rand(64, *SHAPE))
    assert error(student, whole, torch.rand(32, *SHAPE)) < 1e-8


def test_promised_moments_make_noise_worth_fitting_on() -> None:
    """Fitted on dim noise, judged on bright images: what BatchNorm knows of them helps."""
    torch.manual_seed(1)
    net = Net()
    bright = lambda n: torch.rand(n, *SHAPE) * 2 + 2  # noqa: E731
    net.train()
    with torch.no_grad():
        for _ in range(40):
            net(bright(64))
    net.eval()
    zeros = torch.zeros(2, *SHAPE)
    graph = _portable(net)
    kept = module_to_onnx(net, zeros, input_name=IMAGE, output_name="scores", optimize=False)
    promised = batch_norm_moments(kept, graph)
    assert len(promised) == 5
    outputs = {node.output[0] for node in graph.graph.node if node.op_type == "Conv"}
    assert len(outputs & set(promised)) == 5  # folding keeps the names
    dim = 0.2 * torch.randn(256, *SHAPE)
    channels, removed, smaller = cut_to(graph, 0.6, dim)
    found = {}
    for name, moments in (("without", {}), ("with", promised)):
        student, whole = OnnxModule(smaller), OnnxModule(graph)
        refit(
            whole, student, smaller, channels, removed, dim, movements=find_movements(OnnxModule(graph), dim, moments)
        )
        found[name] = error(student, whole, bright(128))
    assert found["with"] < 0.8 * found["without"]


def _portable(net: nn.Module) -> onnx.ModelProto:
    from edgedafl.graph.canonicalize import canonicalize
    from edgedafl.graph.facts import ImageInput

    model = module_to_onnx(net, torch.zeros(2, *SHAPE), input_name=IMAGE, output_name="scores")
    return canonicalize(model, ImageInput(IMAGE, (None, *SHAPE), "FLOAT", "NCHW", SHAPE, None), "scores")


def test_a_layer_reads_and_writes_its_rows(teacher) -> None:
    graph = teacher.network()
    module = OnnxModule(graph)
    seen = set()
    with torch.no_grad():
        for walk in module.walk({IMAGE: torch.rand(8, *SHAPE)}):
            layer = layer_of(walk.node, module)
            given = None if layer is None else walk.values[walk.node.input[0]]
            walk.run()
            if layer is None or given is None:
                continue
            made = walk.values[walk.node.output[0]]
            rows, [outputs] = layer.rows(given, [made], 500, torch.Generator().manual_seed(0))
            weight = layer.read(module)
            torch.testing.assert_close(rows @ weight.transpose(1, 2), outputs, rtol=1e-3, atol=1e-3)
            layer.write(module, weight)
            torch.testing.assert_close(layer.read(module), weight)
            seen.add((walk.node.op_type, layer.groups))
    assert {("Conv", 1), ("Conv", 24), ("Gemm", 1)} <= seen


def test_widths_are_cut_where_a_weight_costs_least(teacher) -> None:
    graph = teacher.network()
    shapes = value_shapes(graph, SHAPE)
    channels = trace_channels(graph, shapes)
    rankings = rank_channels(graph, channels, collect_moments(OnnxModule(graph), channels, [torch.rand(64, *SHAPE)]))
    costs = Costs(graph, channels, shapes)
    path = width_path(rankings, [1.0] * len(rankings), costs)
    sizes = [place.parameters for place in path]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.4 * sizes[0]
    assert [place.loss for place in path] == sorted(place.loss for place in path)
    floats = sum(
        int(np.prod(t.dims)) for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims)
    )
    assert sizes[0] == floats
    middle = path[len(path) // 2]
    removed = frozenset(u for r, count in zip(rankings, middle.counts, strict=True) for u in r.units[count:].tolist())
    smaller = cut(graph, channels, removed)
    left = sum(
        int(np.prod(t.dims)) for t in smaller.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims)
    )
    assert left == pytest.approx(middle.parameters, rel=1e-6)


@pytest.mark.parametrize(
    ("count", "multiple", "wanted"),
    [(6, 1, [6, 5, 4, 3, 2]), (16, 1, [16, 12, 8, 4]), (64, 16, [64, 48, 32, 16]), (10, 1, [10, 8, 6, 4])],
)
def test_counts_of_channels_go_down_in_steps(count: int, multiple: int, wanted: list[int]) -> None:
    assert narrowed(count, multiple) == wanted


class View(nn.Module):
    """`x.view(x.size(0), -1)`, as old exporters write it: Shape, Gather of a scalar, Unsqueeze, Concat."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Linear(8 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.nn.functional.avg_pool2d(self.conv(x), 4))
        return self.last(x.view(x.size(0), -1))


def test_scalars_stay_scalars_when_a_graph_is_cut(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 4, opset_import: ["": 11]> g (float[n,3,16,16] x) => (float[n,5] y) {
        c = Conv<pads=[1,1,1,1]>(x, k)  r = Relu(c)  p = GlobalAveragePool(r)
        s = Shape(p)  i = Constant<value = int64 {0}>()  b = Gather<axis=0>(s, i)  u = Unsqueeze<axes=[0]>(b)
        m = Constant<value = int64[1] {-1}>()  t = Concat<axis=0>(u, m)  f = Reshape(p, t)  y = Gemm<transB=1>(f, w, v) }"""
    )
    random = np.random.default_rng(0)
    for name, shape in (("k", (8, 3, 3, 3)), ("w", (5, 8)), ("v", (5,))):
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    onnx.save(model, tmp_path / "view.onnx")
    graph = load_teacher(str(tmp_path / "view.onnx"), PIXELS).network()
    _, removed, smaller = cut_to(graph, 0.5, torch.rand(32, *SHAPE))
    assert len(removed) == 4
    scalars = {t.name for t in graph.graph.initializer if not t.dims}
    assert scalars == {t.name for t in smaller.graph.initializer if not t.dims}
    answers = run_batched(open_session(smaller), np.random.rand(3, *SHAPE).astype(np.float32))
    assert answers.shape == (3, 5)


def test_a_compact_graph_answers_the_same_in_fewer_bytes(teacher) -> None:
    graph = teacher.network()
    for index, node in enumerate(graph.graph.node):
        node.name = f"layer_{index}"
    long = onnx.ModelProto()
    long.CopyFrom(graph)
    twin = numpy_helper.from_array(np.zeros(4, np.int32), "a_name_that_nobody_wants_to_read")
    other = numpy_helper.from_array(np.zeros(4, np.int32), "another_of_the_kind")
    long.graph.initializer.extend([twin, other])
    small = compact(long)
    assert len(small.SerializeToString()) < len(long.SerializeToString()) - 100
    assert sum(t.data_type == onnx.TensorProto.INT32 for t in small.graph.initializer) == 1
    images = np.random.rand(2, *SHAPE).astype(np.float32)
    one, two = (run_batched(open_session(m), images) for m in (long, small))
    np.testing.assert_array_equal(one, two)
    assert [node.name for node in small.graph.node] == [node.name for node in long.graph.node]
    names = [t.name for t in small.graph.initializer] + [o for node in small.graph.node for o in node.output]
    assert len(names) == len(set(names))
