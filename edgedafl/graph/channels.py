"""Which channels of a graph belong together: what structured pruning must cut at once.

Every channel that a layer writes is a *unit*. A unit is followed through the graph: activations and
pooling keep it, additions tie two units into one, a concatenation lines units up, flattening repeats
each of them once per pixel. Whatever an operator is not known to keep apart is *fixed*: it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["ChannelMap", "Reader", "Slot", "trace_channels"]

_KEEPING = {
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
_POOLING = {"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"}
_REDUCING = {"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"}
_JOINING = {"Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum"}


@dataclass(frozen=True)
class Slot:
    """One axis of an initializer, with the unit of each of its places.

    Attributes:
        initializer: Its name.
        axis: The axis.
        units: Unit per place (n,).
    """

    initializer: str
    axis: int
    units: np.ndarray


@dataclass(frozen=True)
class Reader:
    """A layer that mixes channels: a convolution or a matrix product.

    Attributes:
        node: Its place in the graph.
        input: The value it reads.
        axis: Channel axis of that value.
        weight: Initializer and axis that run over what it reads.
        bias: Initializer of its bias, or None.
        written: Axis of the weight that runs over what it writes.
    """

    node: int
    input: str
    axis: int
    weight: Slot
    bias: str | None
    written: int


@dataclass(frozen=True)
class ChannelMap:
    """All units of a graph.

    Attributes:
        slots: Axes of weights that are cut with their units.
        sizes: Places of shape constants that hold a count of units: the initializer, the place, the units.
        pads: Padding of channels: node, its initializer of pads, and the units before and behind.
        readers: Layers that read units.
        groups: Units that may be cut, each group written by the same layers.
    """

    slots: tuple[Slot, ...]
    sizes: tuple[Slot, ...]
    pads: tuple[tuple[Slot, np.ndarray], ...]
    depthwise: tuple[tuple[int, np.ndarray], ...]
    readers: tuple[Reader, ...]
    groups: tuple[np.ndarray, ...]

    @property
    def prunable(self) -> int:
        """How many units may be cut."""
        return sum(len(group) for group in self.groups)


@dataclass(frozen=True)
class _Axis:
    """The channel axis of a value and the unit of each place on it."""

    axis: int
    units: np.ndarray


def trace_channels(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ChannelMap:
    """Follow all channels of a graph.

    Args:
        model: A graph whose constants are initializers, none of them shared.
        shapes: Shape of every value for one image.
    """
    return _Tracer(model, shapes).trace()


class _Tracer:
    def __init__(self, model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.nodes = model.graph.node
        self.outputs = [output.name for output in model.graph.output]
        self.constants = {t.name: t for t in model.graph.initializer}
        self.shapes = dict(shapes) | {t.name: tuple(t.dims) for t in model.graph.initializer}
        self.parents: list[int] = []
        self.writers: list[set[int]] = []
        self.fixed: set[int] = set()
        self.values: dict[str, _Axis] = {}
        self.slots: list[Slot] = []
        self.sizes: list[Slot] = []
        self.pads: list[tuple[Slot, np.ndarray]] = []
        self.depthwise: list[tuple[int, np.ndarray]] = []
        self.readers: list[Reader] = []

    def trace(self) -> ChannelMap:
        for index, node in enumerate(self.nodes):
            rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            if rule is None or not rule(self, index, node):
                self.fix(node.input)
        self.fix(self.outputs)
        return ChannelMap(
            tuple(self._settled(slot) for slot in self.slots),
            tuple(self._settled(size) for size in self.sizes),
            tuple((self._settled(front), self.roots(behind)) for front, behind in self.pads),
            tuple((node, self.roots(units)) for node, units in self.depthwise),
            tuple(self._reader(reader) for reader in self.readers),
            self._groups(),
        )

    def _settled(self, slot: Slot) -> Slot:
        return Slot(slot.initializer, slot.axis, self.roots(slot.units))

    def _reader(self, reader: Reader) -> Reader:
        return Reader(reader.node, reader.input, reader.axis, self._settled(reader.weight), reader.bias, reader.written)

    def _groups(self) -> tuple[np.ndarray, ...]:
        fixed = set(self.roots(np.array(sorted(self.fixed), int)).tolist())
        writers: dict[int, set[int]] = {}
        for unit, nodes in enumerate(self.writers):
            writers.setdefault(self.root(unit), set()).update(nodes)
        groups: dict[tuple[int, ...], list[int]] = {}
        for unit, nodes in writers.items():
            if unit not in fixed and nodes:
                groups.setdefault(tuple(sorted(nodes)), []).append(unit)
        return tuple(np.array(units) for units in groups.values())

    # Units.

    def fresh(self, count: int, writer: int | None) -> np.ndarray:
        start = len(self.parents)
        self.parents += range(start, start + count)
        self.writers += [set() if writer is None else {writer} for _ in range(count)]
        return np.arange(start, start + count)

    def root(self, unit: int) -> int:
        while self.parents[unit] != unit:
            self.parents[unit] = self.parents[self.parents[unit]]
            unit = self.parents[unit]
        return unit

    def roots(self, units: np.ndarray) -> np.ndarray:
        return np.array([self.root(int(unit)) for unit in units], int)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        for one, other in zip(a.tolist(), b.tolist(), strict=True):
            self.parents[self.root(one)] = self.root(other)

    def fix(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.values:
                self.fixed.update(self.values[name].units.tolist())

    # Values.

    def put(self, name: str, axis: int, units: np.ndarray) -> bool:
        self.values[name] = _Axis(axis, units)
        return True

    def keep(self, node: onnx.NodeProto) -> bool:
        given = self.values.get(node.input[0])
        return given is None or self.put(node.output[0], given.axis, given.units)

    def constant(self, node: onnx.NodeProto, place: int) -> np.ndarray | None:
        if place >= len(node.input) or node.input[place] not in self.constants:
            return None
        return numpy_helper.to_array(self.constants[node.input[place]])

    def read(self, index: int, node: onnx.NodeProto, weight: Slot, written: int, bias: str | None) -> None:
        given = self.values.get(node.input[0])
        if given is not None:
            slot = Slot(weight.initializer, weight.axis, given.units)
            self.slots.append(slot)
            self.readers.append(Reader(index, node.input[0], given.axis, slot, bias, written))

    def write(self, index: int, node: onnx.NodeProto, axis: int, weight: Slot, bias: str | None) -> bool:
        units = self.fresh(self.shapes[weight.initializer][weight.axis], index)
        self.slots.append(Slot(weight.initializer, weight.axis, units))
        if bias is not None:
            self.slots.append(Slot(bias, len(self.shapes[bias]) - 1, units))
        return self.put(node.output[0], axis, units)


def _attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


_NO_UNITS = np.zeros(0, int)


def _convolution(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    weight = node.input[1]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if weight not in t.constants or (bias is not None and bias not in t.constants):
        return False
    group = int(_attribute(node, "group", 1))  # type: ignore[call-overload]
    given = t.values.get(node.input[0])
    if group == 1:
        t.read(index, node, Slot(weight, 1, _NO_UNITS), 0, bias)
        return t.write(index, node, 1, Slot(weight, 0, _NO_UNITS), bias)
    if given is None or t.shapes[weight][:2] != (group, 1) or given.axis != 1:
        return False
    # Depthwise: every channel has a kernel of its own.
    t.slots += [Slot(name, 0, given.units) for name in (weight, bias) if name is not None]
    t.depthwise.append((index, given.units))
    return t.keep(node)


def _gemm(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    weight = node.input[1]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if weight not in t.constants or _attribute(node, "transA", 0):
        return False
    given = t.values.get(node.input[0])
    if given is not None and given.axis != 1:
        return False
    outer = 0 if _attribute(node, "transB", 0) else 1
    count = t.shapes[weight][outer]
    if bias is not None and (bias not in t.constants or t.shapes[bias] not in ((count,), (1, count))):
        return False
    vector = bias if bias is not None and len(t.shapes[bias]) == 1 else None
    t.read(index, node, Slot(weight, 1 - outer, _NO_UNITS), outer, vector)
    return t.write(index, node, 1, Slot(weight, outer, _NO_UNITS), bias)


def _product(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    weight = node.input[1]
    given = t.values.get(node.input[0])
    if weight not in t.constants or len(t.shapes[weight]) != 2:
        return False
    last = len(t.shapes[node.input[0]]) - 1
    if given is not None and given.axis != last:
        return False
    t.read(index, node, Slot(weight, 0, _NO_UNITS), 1, None)
    return t.write(index, node, last, Slot(weight, 1, _NO_UNITS), None)


def _keeping(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    return t.keep(node)


def _pooling(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    return given is None or (given.axis == 1 and len(node.output) == 1 and t.keep(node))


def _normalization(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    if given.axis != 1 or any(name not in t.constants for name in node.input[1:]):
        return False
    t.slots += [Slot(name, 0, given.units) for name in node.input[1:]]
    return t.keep(node)


def _reducing(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    axes = _attribute(node, "axes")
    listed = t.constant(node, 1) if axes is None else np.array(axes)
    if listed is None:
        return False
    rank = len(t.shapes[node.input[0]])
    reduced = {int(a) % rank for a in listed.reshape(-1)}
    if given.axis in reduced:
        return False
    moved = 0 if _attribute(node, "keepdims", 1) else sum(a < given.axis for a in reduced)
    return t.put(node.output[0], given.axis - moved, given.units)


def _joining(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Element by element: operands share their channel axis, counted from the last."""
    tracked = [name for name in node.input if name in t.values]
    if not tracked:
        return True
    rank = len(t.shapes[node.output[0]])
    places = {t.values[name].axis + rank - len(t.shapes[name]) for name in tracked}
    wide = [name for name in tracked if len(t.values[name].units) > 1] or tracked
    units = t.values[wide[0]].units
    if len(places) != 1 or any(len(t.values[name].units) != len(units) for name in wide):
        return False
    (place,) = places
    slots = []
    for name in node.input:
        axis = place - rank + len(t.shapes[name])
        side = t.shapes[name][axis] if axis >= 0 else 1
        if name in tracked or side == 1:
            continue
        if name not in t.constants or side != len(units):
            return False
        slots.append(Slot(name, axis, units))
    t.slots += slots
    for name in wide[1:]:
        t.tie(t.values[name].units, units)
    return t.put(node.output[0], place, units)


def _concatenation(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = [t.values.get(name) for name in node.input]
    tracked = [value for value in given if value is not None]
    if not tracked:
        return True
    axis = int(_attribute(node, "axis", 1)) % len(t.shapes[node.output[0]])  # type: ignore[call-overload]
    if any(value.axis != axis for value in tracked):
        return False
    pieces = []
    for name, value in zip(node.input, given, strict=True):
        units = t.fresh(t.shapes[name][axis], None) if value is None else value.units
        if value is None:
            t.fixed.update(units.tolist())
        pieces.append(units)
    return t.put(node.output[0], axis, np.concatenate(pieces))


def _padding(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    pads = t.constant(node, 1)
    if pads is None or len(node.input) > 3 or _attribute(node, "mode", b"constant") != b"constant":
        return False
    rank = len(t.shapes[node.input[0]])
    before, behind = int(pads[given.axis]), int(pads[given.axis + rank])
    if not before and not behind:
        return t.keep(node)
    value = t.constant(node, 2)
    if min(before, behind) < 0 or (value is not None and value.reshape(-1)[0] != 0):
        return False
    front, back = t.fresh(before, None), t.fresh(behind, None)
    t.pads.append((Slot(node.input[1], given.axis, front), back))
    return t.put(node.output[0], given.axis, np.concatenate([front, given.units, back]))


def _reshaping(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Flattening behind the batch, or a shape that keeps the channel axis where it is."""
    given = t.values.get(node.input[0])
    if given is None:
        return True
    before, after = t.shapes[node.input[0]], t.shapes[node.output[0]]
    if len(after) == 2 and after[0] == before[0]:
        side = [1] * len(before)
        side[given.axis] = -1
        units = np.broadcast_to(given.units.reshape(side), before).reshape(before[0], -1)[0]
    elif len(after) > given.axis and after[: given.axis + 1] == before[: given.axis + 1]:
        units = given.units
    else:
        return False
    axis = 1 if len(after) == 2 and after[0] == before[0] else given.axis
    if node.op_type == "Reshape":
        sizes = t.constant(node, 1)
        if sizes is None or len(sizes) != len(after):
            return False
        if sizes[axis] > 0:
            t.sizes.append(Slot(node.input[1], axis, units))
        elif len(after) > 2 and sizes[axis] < 0:
            return False
    return t.put(node.output[0], axis, units)


def _transposition(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    rank = len(t.shapes[node.input[0]])
    order = [*(_attribute(node, "perm") or reversed(range(rank)))]  # type: ignore[call-overload]
    return t.put(node.output[0], order.index(given.axis), given.units)


def _squeezing(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    before, after = t.shapes[node.input[0]], t.shapes[node.output[0]]
    if before[given.axis] == 1:
        return False
    # Sides of one do not move the channels among the longer ones.
    order = sum(side != 1 for side in before[: given.axis])
    places = [place for place, side in enumerate(after) if side != 1]
    return t.put(node.output[0], places[order], given.units)


def _slicing(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    axes = t.constant(node, 3)
    rank = len(t.shapes[node.input[0]])
    if axes is None or given.axis in {int(a) % rank for a in axes.reshape(-1)}:
        return False
    return t.keep(node)


def _resizing(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    sized = len(node.input) > 3 and node.input[3] != ""
    return given is None or (given.axis == 1 and not sized and t.keep(node))


def _asking(t: _Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Shapes are read while the graph runs: what was cut is seen there."""
    return True


_Rule = Callable[[_Tracer, int, onnx.NodeProto], bool]
_RULES: dict[str, _Rule] = {
    "BatchNormalization": _normalization,
    "Concat": _concatenation,
    "Conv": _convolution,
    "Flatten": _reshaping,
    "Gemm": _gemm,
    "InstanceNormalization": _normalization,
    "MatMul": _product,
    "Pad": _padding,
    "Reshape": _reshaping,
    "Resize": _resizing,
    "Shape": _asking,
    "Slice": _slicing,
    "Squeeze": _squeezing,
    "Transpose": _transposition,
    "Unsqueeze": _squeezing,
    "Upsample": _resizing,
    **dict.fromkeys(_JOINING, _joining),
    **dict.fromkeys(_KEEPING, _keeping),
    **dict.fromkeys(_POOLING, _pooling),
    **dict.fromkeys(_REDUCING, _reducing),
}
