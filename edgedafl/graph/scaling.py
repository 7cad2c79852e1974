"""Factors on channels that a network's answers do not depend on.

A layer may write a channel twice as large where all layers that read it divide their weights by two, and nothing
between them minds: a ReLU does not, a hard-swish does. What such a factor stands on is followed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgedafl.graph.edit import attribute, copy_of
from edgedafl.graph.ties import Ties

__all__ = ["ChannelScaling", "ScaledAxis", "find_scaling", "rescaled"]

# Twice the input makes twice the output, channel by channel.
_PROPORTIONAL = {
    "AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MaxPool", "PRelu", "Relu",
    "Resize", "Upsample",
}  # fmt: skip


@dataclass(frozen=True)
class ScaledAxis:
    """One axis of a weight or bias that takes the factors of some channels.

    Attributes:
        initializer: Its name.
        axis: The axis.
        units: Channel per place on it, as an index into the factors.
        reads: Whether its layer reads the channels: it is divided, not multiplied.
    """

    initializer: str
    axis: int
    units: np.ndarray
    reads: bool


@dataclass(frozen=True)
class ChannelScaling:
    """Channels of a graph that factors may stand on.

    Attributes:
        values: Channels of the values that weighted layers and sums read, by name.
        axes: What takes the factors.
        free: By channel, whether a factor may stand on it.
    """

    values: Mapping[str, np.ndarray]
    axes: tuple[ScaledAxis, ...]
    free: np.ndarray


def find_scaling(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ChannelScaling:
    """Follow the channels of a graph.

    Args:
        model: Float graph.
        shapes: Of every value for one image; channels are on axis 1.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1,8,8] x) => (float[1,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[1,2,1,1] v = {3, 4}>
        ...     { a = Conv(x, w)  b = Relu(a)  y = Conv(b, v) }'''
        >>> shapes = {"x": (1, 1, 8, 8), "a": (1, 2, 8, 8), "b": (1, 2, 8, 8), "y": (1, 1, 8, 8)}
        >>> found = find_scaling(onnx.parser.parse_model(text), shapes)
        >>> [(axis.initializer, axis.axis, axis.reads) for axis in found.axes if found.free[axis.units].all()]
        [('w', 0, False), ('v', 1, True)]
    """
    follower = _Follower(model, shapes)
    for node in model.graph.node:
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or not rule(follower, node):
            follower.fix(*node.input)
    follower.fix(*(output.name for output in model.graph.output))
    return follower.result()


def rescaled(model: onnx.ModelProto, scaling: ChannelScaling, factors: np.ndarray) -> onnx.ModelProto:
    """A copy whose channels are that many times as large, and whose answers are the same.

    Args:
        model: The graph that was followed.
        scaling: What was found.
        factors: One per channel, above 0; those of channels that are not free do not count.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1] x) => (float[1,1] y)
        ...     <float[1,2] w = {1, 2}, float[2,1] v = {3, 4}> { a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> found = find_scaling(model, {"x": (1, 1), "a": (1, 2), "b": (1, 2), "y": (1, 1)})
        >>> [numpy_helper.to_array(t).ravel() for t in rescaled(model, found, np.full(4, 2.0)).graph.initializer]
        [array([2., 4.], dtype=float32), array([1.5, 2. ], dtype=float32)]
    """
    factors = np.where(scaling.free, factors, 1.0)
    changed = copy_of(model)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    weights: dict[str, np.ndarray] = {}
    for axis in scaling.axes:
        weight = weights.get(axis.initializer)
        if weight is None:
            weight = numpy_helper.to_array(stored[axis.initializer]).astype(np.float64)
        own = factors[axis.units].reshape([-1 if i == axis.axis else 1 for i in range(weight.ndim)])
        weights[axis.initializer] = weight / own if axis.reads else weight * own
    for name, weight in weights.items():
        stored[name].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), name))
    return changed


class _Follower:
    """Channels that rules have followed so far; channels that must share a factor are one."""

    def __init__(self, model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.stored = {t.name: tuple(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        self._uses = Counter(name for node in model.graph.node for name in node.input)
        self.shapes = shapes
        self._values: dict[str, np.ndarray] = {}
        self._read: list[str] = []
        self._axes: list[ScaledAxis] = []
        self._ties = Ties()
        self._fixed: list[np.ndarray] = []

    def channels(self, name: str) -> int:
        """Of a value, 0 where it has none."""
        shape = self.shapes.get(name, ())
        return shape[1] if len(shape) > 1 else 0

    def owns(self, *names: str) -> bool:
        """Whether these are weights that one node alone reads."""
        return all(name in self.stored and self._uses[name] == 1 for name in names)

    def units(self, name: str) -> np.ndarray:
        """Channels of a value; of one that no rule has made they stay as they are."""
        if name not in self._values:
            self._values[name] = self.fresh(self.channels(name))
            self._fixed.append(self._values[name])
        return self._values[name]

    def fresh(self, count: int) -> np.ndarray:
        return self._ties.fresh(count)

    def put(self, name: str, units: np.ndarray) -> bool:
        self._values[name] = units
        return True

    def fix(self, *names: str) -> None:
        """No factor on these."""
        self._fixed += [self.units(name) for name in names if name and name not in self.stored]

    def merge(self, one: np.ndarray, other: np.ndarray) -> None:
        self._ties.merge(one, other)

    def reads(self, name: str) -> None:
        """Integers will be made of this value."""
        self._read.append(name)

    def take(self, initializer: str, axis: int, units: np.ndarray, *, reads: bool) -> None:
        self._axes.append(ScaledAxis(initializer, axis, units, reads))

    def result(self) -> ChannelScaling:
        roots = self._ties.roots(np.arange(len(self._ties)))
        free = np.ones(len(roots), bool)
        for units in self._fixed:
            free[roots[units]] = False
        axes = tuple(ScaledAxis(a.initializer, a.axis, roots[a.units], a.reads) for a in self._axes)
        return ChannelScaling({name: roots[self._values[name]] for name in self._read}, axes, free)


def _convolution(f: _Follower, node: onnx.NodeProto) -> bool:
    weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
    if not f.owns(weight) or (bias and not f.owns(bias)):
        return False
    group, (written, width) = int(attribute(node, "group", 1)), f.stored[weight][:2]
    given = f.units(node.input[0])
    f.reads(node.input[0])
    if group == 1 and width == len(given):
        f.take(weight, 1, given, reads=True)
    elif width == 1 and group == len(given):  # depthwise: every channel has kernels of its own
        f.take(weight, 0, given.repeat(written // group), reads=True)
    else:
        f.fix(node.input[0])
    return _write(f, node, weight, 0, bias)


def _product(f: _Follower, node: onnx.NodeProto) -> bool:
    """A matrix product of vectors, one per image."""
    weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
    given = f.units(node.input[0])
    if len(f.shapes.get(node.input[0], ())) != 2:  # of more axes, as in transformers, the last one is multiplied
        return False
    if not f.owns(weight) or len(f.stored[weight]) != 2 or attribute(node, "transA", 0):
        return False
    across = int(attribute(node, "transB", 0))
    if f.stored[weight][across] != len(given) or (bias and not f.owns(bias)):
        return False
    f.reads(node.input[0])
    f.take(weight, across, given, reads=True)
    return _write(f, node, weight, 1 - across, bias)


def _write(f: _Follower, node: onnx.NodeProto, weight: str, axis: int, bias: str) -> bool:
    made = f.fresh(f.channels(node.output[0]))
    if len(made) != f.stored[weight][axis]:
        return False
    f.take(weight, axis, made, reads=False)
    f.put(node.output[0], made)
    if bias and f.stored[bias] == (len(made),):
        f.take(bias, 0, made, reads=False)
    elif bias:
        f.fix(node.output[0])
    return True


def _proportional(f: _Follower, node: onnx.NodeProto) -> bool:
    given = f.units(node.input[0])
    return len(node.output) == 1 and f.channels(node.output[0]) == len(given) and f.put(node.output[0], given)


def _mean(f: _Follower, node: onnx.NodeProto) -> bool:
    """Of the image plane: the channels are as many as before, and not what is averaged over."""
    shape = f.shapes.get(node.input[0], ())
    return len(shape) == 4 and shape[1] not in shape[2:] and _proportional(f, node)


def _flattening(f: _Follower, node: onnx.NodeProto) -> bool:
    """Channels in the order of their images' planes, as `view(n, -1)` makes them."""
    given, shape, made = f.units(node.input[0]), f.shapes.get(node.input[0], ()), f.channels(node.output[0])
    if len(f.shapes.get(node.output[0], ())) != 2 or made != int(np.prod(shape[1:])):
        return False
    return f.put(node.output[0], given.repeat(made // max(len(given), 1)))


def _sum(f: _Follower, node: onnx.NodeProto) -> bool:
    one, other = node.input
    if one in f.stored or other in f.stored or f.channels(one) != f.channels(other):
        return False
    f.merge(f.units(one), f.units(other))
    f.reads(one)
    f.reads(other)
    return f.put(node.output[0], f.units(one))


def _gate(f: _Follower, node: onnx.NodeProto) -> bool:
    """A value times one number per channel and image: what computes the gate sees the value as it is read there."""
    planes = [int(np.prod(f.shapes.get(name, ())[2:])) for name in node.input]
    if any(name in f.stored for name in node.input) or planes[0] == planes[1]:
        return False
    value, gate = node.input if planes[0] > planes[1] else reversed(node.input)
    if f.channels(value) != f.channels(gate):
        return False
    f.fix(gate)
    f.reads(value)
    f.reads(node.output[0])
    return f.put(node.output[0], f.units(value))


def _concatenation(f: _Follower, node: onnx.NodeProto) -> bool:
    if attribute(node, "axis", 1) != 1 or any(name in f.stored for name in node.input):
        return False
    for name in node.input:
        f.reads(name)
    return f.put(node.output[0], np.concatenate([f.units(name) for name in node.input]))


_RULES: dict[str, Callable[[_Follower, onnx.NodeProto], bool]] = {
    "Add": _sum,
    "Concat": _concatenation,
    "Conv": _convolution,
    "Flatten": _flattening,
    "Gemm": _product,
    "MatMul": _product,
    "Mul": _gate,
    "ReduceMean": _mean,
    "Reshape": _flattening,
    "Squeeze": _flattening,
    **dict.fromkeys(_PROPORTIONAL, _proportional),
}
