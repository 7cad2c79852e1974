"""Factors on channels, which answers do not depend on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch, with_all_outputs
from edgedafl.graph.runtime import open_session
from edgedafl.graph.scaling import find_scaling, rescaled

SHAPE = (3, 12, 12)


class Gated(nn.Module):
    """A depthwise block with a gate, its residual and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1, groups=16), nn.PReLU(32))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 4, 1), nn.ReLU(), nn.Conv2d(4, 32, 1))
        self.narrow = nn.Conv2d(32, 8, 1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, 1, 1, groups=2)
        self.head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10), nn.ReLU(), nn.Linear(10, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        wide = self.wide(x)
        x = x + self.narrow(wide * torch.sigmoid(self.gate(wide)))
        return self.head(torch.cat([x, torch.relu(self.grouped(x))], 1))


class Swished(nn.Module):
    """Hard-swishes, a bounded activation and sums of constants: hardly a channel is free."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 6, 3)
        self.shift = nn.Parameter(torch.rand(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.a(x))
        x = nn.functional.relu6(self.b(x)) + self.shift
        return self.c(x).mean((2, 3))


def graph_of(module: nn.Module) -> onnx.ModelProto:
    return fix_batch(student_to_onnx(module.eval(), SHAPE), 1)


def values_of(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    session = open_session(with_all_outputs(model), optimize=False)
    names = [output.name for output in session.get_outputs()]
    feed = session.get_inputs()[0].name
    return {feed: image} | dict(zip(names, session.run(names, {feed: image}), strict=True))


@pytest.mark.parametrize(("module", "free"), [(Gated, 70), (Swished, 0)])
def test_answers_do_not_depend_on_factors(module: type[nn.Module], free: int) -> None:
    torch.manual_seed(0)
    model = graph_of(module())
    random = np.random.default_rng(0)
    image = random.normal(size=(1, *SHAPE)).astype(np.float32)
    values = values_of(model, image)
    scaling = find_scaling(model, {name: value.shape for name, value in values.items()})
    touched = np.unique(np.concatenate([axis.units for axis in scaling.axes]))
    assert scaling.free[touched].sum() == free
    factors = np.exp(random.normal(size=len(scaling.free)))
    changed = rescaled(model, scaling, factors)
    own = values_of(changed, image)
    output = model.graph.output[0].name
    np.testing.assert_allclose(own[output], values[output], rtol=1e-4, atol=1e-5)
    moved = [name for name, units in scaling.values.items() if scaling.free[units].all()]
    for name in moved:
        wide = factors[scaling.values[name]].reshape([-1 if i == 1 else 1 for i in range(values[name].ndim)])
        np.testing.assert_allclose(own[name], values[name] * wide, rtol=1e-3, atol=1e-4)
    assert (len(moved) > 0) == (free > 0)


def test_tokens_are_not_channels() -> None:
    """As many tokens as numbers in each: a matrix product reads the numbers."""
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1,2,2] x) => (float[1,2,2] y)
        <float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {1, 2, 3, 4}> { a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, v) }"""
    shape = (1, 2, 2)
    scaling = find_scaling(onnx.parser.parse_model(text), {"x": shape, "a": shape, "b": shape, "y": shape})
    assert not scaling.axes and not scaling.free.any()


def test_a_weight_that_two_layers_share_is_left_alone() -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1,2,4,4] x) => (float[1,2,4,4] y)
        <float[2,2,1,1] w = {1, 2, 3, 4}> { a = Conv(x, w)  b = Relu(a)  y = Conv(b, w) }"""
    shape = (1, 2, 4, 4)
    scaling = find_scaling(onnx.parser.parse_model(text), {"x": shape, "a": shape, "b": shape, "y": shape})
    assert not scaling.axes
    assert not scaling.free.any()
