"""What each operator does to channels.

A rule follows the channels of a node's inputs to its outputs and answers True, or answers False where
it cannot tell: then the channels of all inputs stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

import numpy as np
import onnx

from edgedafl.graph.edit import attribute
from edgedafl.graph.pruning.channels import ChannelMap
from edgedafl.graph.pruning.heads import cut_out, multiply_values, pick, place_among_long, regroup, softmax, split
from edgedafl.graph.pruning.tracer import Tracer

__all__ = ["trace_channels"]

_KEEPING = {
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
_POOLING = {"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"}
_REDUCING = {"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"}
_JOINING = {"Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum"}


def trace_channels(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ChannelMap:
    """Follow all channels of a graph.

    Args:
        model: A graph whose constants are initializers, none of them shared.
        shapes: Shape of every value for one image.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] x) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[1,2,1,1] v = {3, 4}> { a = Conv(x, w)  y = Conv(a, v) }'''
        >>> shapes = {"x": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)}
        >>> channels = trace_channels(onnx.parser.parse_model(text), shapes)
        >>> channels.groups
        (array([0, 1]),)
    """
    tracer = _traced(model, shapes, frozenset())
    stuck = tracer.stuck()
    return (_traced(model, shapes, stuck) if stuck else tracer).result()


def _traced(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], whole: Set[str]) -> Tracer:
    tracer = Tracer(model, shapes, whole)
    for index, node in enumerate(model.graph.node):
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or not rule(tracer, index, node):
            tracer.fix(node.input)
    tracer.fix(output.name for output in model.graph.output)
    return tracer


def _bias_of(node: onnx.NodeProto) -> str | None:
    return node.input[2] if len(node.input) > 2 and node.input[2] else None


def _convolution(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    weight, bias = node.input[1], _bias_of(node)
    stored = [name for name in (weight, bias) if name is not None]
    if not t.stores(*stored):
        return False
    group = int(attribute(node, "group", 1))
    if group == 1:
        t.read(node, 1, 0, bias)
        return t.write(index, node, 1, 0, bias)
    given = t.values.get(node.input[0])
    if given is None or t.shapes[weight][:2] != (group, 1):
        return False
    # Depthwise: every channel has a kernel of its own.
    t.add_coupled(stored, 0, given.units)
    t.add_depthwise(index, given.units)
    return t.keep(node)


def _gemm(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    weight, bias = node.input[1], _bias_of(node)
    given = t.values.get(node.input[0])
    if not t.stores(weight) or attribute(node, "transA", 0) or (given is not None and given.axis != 1):
        return False
    written = 0 if attribute(node, "transB", 0) else 1
    count = t.shapes[weight][written]
    if bias is not None and (not t.stores(bias) or t.shapes[bias] not in ((count,), (1, count))):
        return False
    plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
    vector = bias if bias is not None and plain and len(t.shapes[bias]) == 1 else None
    t.read(node, 1 - written, written, vector)
    return t.write(index, node, 1, written, bias)


def _product(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    last = len(t.shapes[node.input[0]]) - 1
    if not t.stores(node.input[0]) and not t.stores(node.input[1]):
        return multiply_values(t, index, node)
    if not t.stores(node.input[1]) or len(t.shapes[node.input[1]]) != 2 or (given is not None and given.axis != last):
        return False
    t.read(node, 0, 1, None)
    return t.write(index, node, last, 1, None)


def _keeping(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    return t.keep(node)


def _pooling(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    return given is None or (given.axis == 1 and len(node.output) == 1 and t.keep(node))


def _normalization(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    if given.axis != 1 or not t.stores(*node.input[1:]):
        return False
    t.add_coupled(node.input[1:], 0, given.units)
    return t.keep(node)


def _reducing(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    axes = attribute(node, "axes")
    listed = t.constant(node, 1) if axes is None else np.array(axes)
    if listed is None:
        return False
    rank = len(t.shapes[node.input[0]])
    reduced = {int(a) % rank for a in listed.reshape(-1)}
    if given.axis in reduced:
        return False
    moved = 0 if attribute(node, "keepdims", 1) else sum(a < given.axis for a in reduced)
    return t.put(node.output[0], given.axis - moved, given.units)


def _joining(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Element by element: operands share their channel axis, counted from the last."""
    followed = [name for name in node.input if name in t.values]
    if not followed:
        return True
    rank = len(t.shapes[node.output[0]])
    places = {t.values[name].axis + rank - len(t.shapes[name]) for name in followed}
    # One channel is broadcast over all of the others.
    wide = [name for name in followed if len(t.values[name].units) > 1] or followed
    units = t.values[wide[0]].units
    if len(places) != 1 or any(len(t.values[name].units) != len(units) for name in wide):
        return False
    (place,) = places
    constants = []
    for name in node.input:
        axis = place - rank + len(t.shapes[name])
        side = t.shapes[name][axis] if axis >= 0 else 1
        if name in followed or side == 1:
            continue
        if not t.stores(name) or side != len(units):
            return False
        constants.append((name, axis))
    for name, axis in constants:
        t.add_coupled([name], axis, units)
    for name in wide[1:]:
        t.merge(t.values[name].units, units)
    return t.put(node.output[0], place, units)


def _concatenation(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = [t.values.get(name) for name in node.input]
    followed = [value for value in given if value is not None]
    if not followed:
        return True
    axis = int(attribute(node, "axis", 1)) % len(t.shapes[node.output[0]])
    if any(value.axis != axis for value in followed):
        return False
    sides = [t.shapes[name][axis] for name in node.input]
    pieces = [t.fixed(side) if value is None else value.units for side, value in zip(sides, given, strict=True)]
    return t.put(node.output[0], axis, np.concatenate(pieces))


def _padding(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    pads = t.constant(node, 1)
    if pads is None or len(node.input) > 3 or attribute(node, "mode", b"constant") != b"constant":
        return False
    before, behind = int(pads[given.axis]), int(pads[given.axis + len(pads) // 2])
    if not before and not behind:
        return t.keep(node)
    value = t.constant(node, 2)
    if min(before, behind) < 0 or (value is not None and value.reshape(-1)[0] != 0):
        return False
    front, back = t.fresh(before), t.fresh(behind)
    t.pad(node.input[1], given.axis, front, back)
    return t.put(node.output[0], given.axis, np.concatenate([front, given.units, back]))


def _reshaping(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Flattening behind the batch, or a shape that leaves the channel axis first or last as it is."""
    given = t.values.get(node.input[0])
    if given is None:
        return True
    before, after = t.shapes[node.input[0]], t.shapes[node.output[0]]
    axis = given.axis
    if len(after) == 2 and after[0] == before[0] and axis:
        sides = [-1 if place == axis else 1 for place in range(1, len(before))]
        units, axis = np.broadcast_to(given.units.reshape(sides), before[1:]).reshape(-1), 1
    elif len(after) > axis and after[: axis + 1] == before[: axis + 1]:
        units = given.units
    elif axis == len(before) - 1 and after[-1] == before[-1]:
        units, axis = given.units, len(after) - 1
    else:
        return node.op_type == "Reshape" and regroup(t, node, given)
    if node.op_type == "Reshape":
        stated = t.constant(node, 1)
        if stated is None and axis == len(after) - 1:
            return _joined_sides(t, node, units) and t.put(node.output[0], axis, units)
        if stated is None or len(stated) != len(after) or (stated[axis] < 0 and len(after) > 2):
            return False
        if stated[axis] > 0:
            t.add_shape_entry(node.input[1], axis, units)
    return t.put(node.output[0], axis, units)


def _joined_sides(t: Tracer, node: onnx.NodeProto, units: np.ndarray) -> bool:
    """Sides that are joined while the graph runs, the last of them a constant, as of `x.view(x.size(0), -1)`."""
    sides = t.producers.get(node.input[1])
    if sides is None or sides.op_type != "Concat" or t.uses[node.input[1]] > 1:
        return False
    last = t.constant(sides, len(sides.input) - 1)
    if last is None or last.size != 1:
        return False
    if int(last.reshape(-1)[0]) > 0:
        t.add_shape_entry(sides.input[len(sides.input) - 1], 0, units)
    return True


def _transposition(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    if given is None:
        return True
    order = list(attribute(node, "perm") or reversed(range(len(t.shapes[node.input[0]]))))
    return t.put(node.output[0], order.index(given.axis), given.units)


def _squeezing(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Sides of one come and go; the channels keep their place among the longer ones."""
    given = t.values.get(node.input[0])
    if given is None:
        return True
    before, after = t.shapes[node.input[0]], t.shapes[node.output[0]]
    if before[given.axis] == 1:
        return False
    return t.put(node.output[0], place_among_long(before, after, given.axis), given.units)


def _resizing(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    given = t.values.get(node.input[0])
    sized = len(node.input) > 3 and node.input[3] != ""
    return given is None or (given.axis == 1 and not sized and t.keep(node))


def _asking(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Shapes are read while the graph runs: what was cut is seen there."""
    return True


_Rule = Callable[[Tracer, int, onnx.NodeProto], bool]
_RULES: dict[str, _Rule] = {
    "BatchNormalization": _normalization,
    "Concat": _concatenation,
    "Conv": _convolution,
    "Flatten": _reshaping,
    "Gather": pick,
    "Gemm": _gemm,
    "InstanceNormalization": _normalization,
    "MatMul": _product,
    "Pad": _padding,
    "Reshape": _reshaping,
    "Resize": _resizing,
    "Shape": _asking,
    "Slice": cut_out,
    "Softmax": softmax,
    "Split": split,
    "Squeeze": _squeezing,
    "Transpose": _transposition,
    "Unsqueeze": _squeezing,
    "Upsample": _resizing,
    **dict.fromkeys(_JOINING, _joining),
    **dict.fromkeys(_KEEPING, _keeping),
    **dict.fromkeys(_POOLING, _pooling),
    **dict.fromkeys(_REDUCING, _reducing),
}
