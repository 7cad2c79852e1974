"""Small random networks of the kinds students are made of, written as ONNX directly.

They are what a device's latency model is fitted to; their weights are noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["CalibrationNetwork", "calibration_networks"]

_CLASSES = 10
_SHAPES = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 96, 96))
_OPSET, _IR = 18, 8


@dataclass(frozen=True)
class CalibrationNetwork:
    """One network.

    Attributes:
        name: Its kind and number.
        input_shape: (C, H, W).
        model: Batch 1, input `image`, output `logits`.
    """

    name: str
    input_shape: tuple[int, int, int]
    model: onnx.ModelProto


@dataclass
class _Builder:
    """A chain of layers on one tensor, whose shape it follows."""

    shape: tuple[int, int, int]
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    at: str = "image"

    def _add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> None:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"n{len(self.nodes)}", **attributes))
        self.at = output

    def _weight(self, *sides: int) -> str:
        values = self.random.normal(size=sides) * np.sqrt(2 / max(1, int(np.prod(sides[1:]))))
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(
        self, channels: int, kernel: int, stride: int = 1, *, groups: int = 1, pad: bool = True, relu: bool = True
    ) -> None:
        given, height, width = self.shape
        margin = kernel // 2 if pad else 0
        names = [self.at, self._weight(channels, given // groups, kernel, kernel), self._weight(channels)]
        self._add("Conv", names, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[margin] * 4, group=groups)
        height, width = ((side + 2 * margin - kernel) // stride + 1 for side in (height, width))
        self.shape = (channels, height, width)
        if relu:
            self._add("Relu", [self.at])

    def pool(self) -> None:
        self._add("MaxPool", [self.at], kernel_shape=[2, 2], strides=[2, 2])
        self.shape = (self.shape[0], self.shape[1] // 2, self.shape[2] // 2)

    def residual(self, channels: int, stride: int) -> None:
        before, shape = self.at, self.shape
        self.conv(channels, 3, stride)
        self.conv(channels, 3, relu=False)
        after = self.at
        if stride > 1 or shape[0] != channels:
            grown, self.at, self.shape = self.shape, before, shape
            self.conv(channels, 1, stride, relu=False)
            before, self.shape = self.at, grown
        self._add("Add", [after, before])
        self._add("Relu", [self.at])

    def inverted(self, channels: int, stride: int, growth: int) -> None:
        before, given = self.at, self.shape[0]
        self.conv(given * growth, 1)
        self.conv(given * growth, 3, stride, groups=given * growth)
        self.conv(channels, 1, relu=False)
        if stride == 1 and given == channels:
            self._add("Add", [self.at, before])

    def average(self) -> None:
        self._add("GlobalAveragePool", [self.at])
        self.shape = (self.shape[0], 1, 1)

    def linear(self, features: int, *, relu: bool) -> None:
        if len(self.shape) == 3:
            self._add("Flatten", [self.at], axis=1)
        given = int(np.prod(self.shape))
        self._add("Gemm", [self.at, self._weight(features, given), self._weight(features)], transB=1)
        self.shape = (features, 1, 1)
        if relu:
            self._add("Relu", [self.at])

    def finish(self, name: str, input_shape: tuple[int, int, int]) -> CalibrationNetwork:
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *input_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, _CLASSES])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        return CalibrationNetwork(name, input_shape, onnx.shape_inference.infer_shapes(model))


def _plain(b: _Builder) -> None:
    width = int(b.random.choice([8, 8, 12, 16, 16, 24, 32, 48]))
    kernel = int(b.random.choice([3, 3, 5]))
    pooled = bool(b.random.integers(2))
    while min(b.shape[1:]) >= 8:
        b.conv(width, kernel, 1 if pooled else 2)
        if pooled:
            b.pool()
        elif b.random.integers(2):
            b.conv(width, kernel)
        width = min(int(b.random.choice([1, 2, 2])) * width, 128)
    if b.random.integers(2):
        b.average()
    else:
        b.linear(int(b.random.choice([32, 64, 128])), relu=True)


def _lenet(b: _Builder) -> None:
    scale = float(b.random.choice([0.5, 1, 2, 3]))
    b.conv(round(6 * scale), 5, pad=False)
    b.pool()
    b.conv(round(16 * scale), 5, pad=False)
    b.pool()
    if min(b.shape[1:]) >= 5:
        b.conv(round(120 * scale), 5, int(b.random.choice([1, 2])), pad=False)
    b.linear(round(84 * scale), relu=True)


def _residual(b: _Builder) -> None:
    width, depth = int(b.random.choice([8, 8, 16, 24, 32])), int(b.random.choice([1, 1, 2, 3]))
    if min(b.shape[1:]) >= 64:
        b.conv(width, 7, 2)
        b.pool()
    else:
        b.conv(width, 3)
    for stage in range(3):
        for block in range(depth):
            b.residual(width * 2**stage, 2 if stage and not block else 1)
    b.average()


def _inverted(b: _Builder) -> None:
    width, growth = int(b.random.choice([8, 8, 16, 24])), int(b.random.choice([2, 4, 6, 6]))
    b.conv(width, 3, int(b.random.choice([1, 2])) if min(b.shape[1:]) <= 64 else 2)
    b.inverted(width, 1, 1)
    for stage in range(4):
        for block in range(int(b.random.choice([1, 2, 3]))):
            shrink = not block and min(b.shape[1:]) >= 8 and b.random.random() < 0.7
            b.inverted(width + 8 * stage, 2 if shrink else 1, growth)
    b.conv(8 * width, 1)
    b.average()


_FAMILIES: dict[str, Callable[[_Builder], None]] = {
    "plain": _plain, "lenet": _lenet, "residual": _residual, "inverted": _inverted,
}  # fmt: skip


# Plain and inverted networks differ most among themselves.
_TURNS = (*_FAMILIES, "plain", "inverted")


def calibration_networks(count: int = 84, seed: int = 0) -> list[CalibrationNetwork]:
    """So many networks, over four kinds and four image sizes in turn; the same for the same seed.

    Examples:
        >>> [network.name for network in calibration_networks(2)]
        ['plain00', 'lenet01']
    """
    found = []
    for index in range(count):
        family = _TURNS[index % len(_TURNS)]
        shape = _SHAPES[(index // len(_TURNS)) % len(_SHAPES)]
        builder = _Builder(shape, np.random.default_rng([seed, index]))
        _FAMILIES[family](builder)
        builder.linear(_CLASSES, relu=False)
        found.append(builder.finish(f"{family}{index:02d}", shape))
    return found
