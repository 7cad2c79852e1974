"""Channels of like size before integers are made of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import integer_model
from edgedafl.quantize.equalization import equalized
from edgedafl.stages.graphs import for_target
from edgedafl.targets import find_target

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def uneven() -> onnx.ModelProto:
    """A network with one channel a thousand times as large as the others before its last layers."""
    torch.manual_seed(0)
    wide, deep = nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 24, 3, 1, 1, groups=24)
    with torch.no_grad():
        deep.weight[5] *= 1000
    narrow = nn.Conv2d(24, 16, 1)
    with torch.no_grad():
        narrow.weight[:, 5] /= 1000
    net = nn.Sequential(
        wide, nn.ReLU(), deep, nn.ReLU(), narrow, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 7)
    )
    return fix_batch(for_target(student_to_onnx(net, SHAPE), find_target("x86")), 1)


def images(count: int, seed: int) -> np.ndarray:
    rough = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(rough, SHAPE[1:], mode="bilinear").numpy()


def scores(model: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
    return run_batched(open_session(model), given, batch=1)


def test_the_answers_stay(uneven: onnx.ModelProto) -> None:
    even, given = equalized(uneven, images(32, 0)), images(16, 1)
    assert even.SerializeToString() != uneven.SerializeToString()
    np.testing.assert_allclose(scores(even, given), scores(uneven, given), rtol=1e-4, atol=1e-5)


def test_integers_of_even_channels_are_nearer(uneven: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, given = find_target("x86").scheme, images(64, 1)
    wanted = scores(uneven, given)

    def error() -> float:
        found = scores(integer_model(uneven, scheme, images(48, 0), images(32, 0)), given)
        return float(np.mean((found - wanted) ** 2) / wanted.var())

    after = error()
    monkeypatch.setattr("edgedafl.quantize.choose.equalized", lambda model, images: model)
    before = error()
    assert after < before / 3, (before, after)


def test_few_bits_leave_channels_as_they_are(uneven: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noting(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
        asked.append(len(images))
        return model

    monkeypatch.setattr("edgedafl.quantize.choose.equalized", noting)
    for bits, count in ((6.0, 0), (7.0, 1), (8.0, 2)):
        integer_model(uneven, find_target("x86").scheme, images(16, 0), images(8, 0), bits)
        assert len(asked) == count


def test_a_channel_that_nothing_excites_stays_as_it_is() -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1,1,2,2] x) => (float[1,1,2,2] y)
        <float[2,1,1,1] w = {1, -1}, float[1,2,1,1] v = {1, 1}> { a = Conv(x, w)  b = Relu(a)  y = Conv(b, v) }"""
    even = equalized(onnx.parser.parse_model(text), np.ones((4, 1, 2, 2), np.float32))
    assert [onnx.numpy_helper.to_array(t).ravel().tolist() for t in even.graph.initializer] == [[1, -1], [1, 1]]
