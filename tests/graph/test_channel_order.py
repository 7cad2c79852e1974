"""Networks that take blue first, behind images of red, green, blue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgedafl.graph.canonicalize import IMAGE
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import Preprocess
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher
from tests.conftest import TinyNet, export

CAFFE = TeacherOptions(convention="caffe", input_shape=(3, 16, 16))
MEAN = np.array([123.68, 116.779, 103.939], np.float32).reshape(1, 3, 1, 1)


class Nhwc(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.permute(0, 3, 1, 2))


def net() -> nn.Module:
    torch.manual_seed(5)
    module = TinyNet(channels=3).eval()
    with torch.no_grad():
        module.body[0].weight.mul_(0.02)
        module.fc.weight.mul_(6)
    return module


def factory() -> nn.Module:
    return net()


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def as_caffe_feeds(module: nn.Module) -> torch.Tensor:
    """What a user of the network does: pixels less the mean, blue first."""
    fed = (pixels().float() - torch.from_numpy(MEAN)).flip(1)
    with torch.no_grad():
        return torch.as_tensor(module(fed))


def open_teacher(kind: str, folder: Path) -> Teacher:
    if kind == "torch":
        return load_teacher(f"{__name__}:factory", CAFFE)
    path = folder / "net.onnx"
    if kind == "nhwc":
        export(Nhwc(net()), path, (16, 16, 3))
    else:
        export(net(), path, (3, 16, 16))
    access = "scores" if kind == "runtime" else None
    return load_teacher(str(path), TeacherOptions(convention="caffe", access=access))


@pytest.mark.parametrize("kind", ["onnx", "nhwc", "runtime", "torch"])
def test_images_are_red_green_blue_whatever_the_network_takes(kind: str, tmp_path: Path) -> None:
    teacher = open_teacher(kind, tmp_path)
    assert teacher.spec.preprocess == Preprocess.named("caffe", 3)
    images = teacher.spec.preprocess.from_pixels(pixels())
    torch.testing.assert_close(teacher.scores(images), as_caffe_feeds(net()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["onnx", "nhwc", "torch"])
def test_the_order_goes_into_the_first_layer_and_costs_nothing(kind: str, tmp_path: Path) -> None:
    teacher = open_teacher(kind, tmp_path)
    graph = teacher.network()
    assert not [node.op_type for node in graph.graph.node if node.op_type in ("Gather", "Transpose")]
    session = open_session(graph)
    images = teacher.spec.preprocess.from_pixels(pixels()).numpy()
    np.testing.assert_allclose(run_batched(session, images), as_caffe_feeds(net()).numpy(), rtol=1e-4, atol=1e-4)


def test_where_something_else_reads_it_first_the_order_stays_a_node(save: Callable[..., Path]) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N,3,16,16] data) => (float[N,3] scores) '
        "{ a = Abs(data) c = Conv<strides=[4,4]>(a, w) r = Relu(c) p = GlobalAveragePool(r) "
        "f = Flatten(p) scores = Gemm(f, v) }"
    )
    random = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 4, 4)), ("v", (8, 3))):
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    teacher = load_teacher(str(save(model)), TeacherOptions(convention="caffe"))
    graph = teacher.network()
    assert [node.op_type for node in graph.graph.node if IMAGE in node.input] == ["Gather"]
    images = teacher.spec.preprocess.from_pixels(pixels())
    fed = {"data": images.flip(1).numpy()}
    np.testing.assert_allclose(
        run_batched(open_session(graph), images.numpy()), open_session(model).run(None, fed)[0], rtol=1e-3, atol=1e-3
    )
