"""What attention does to channels: heads are units of their own, from the last axis taken apart to its joining.

A head is cut as a whole, queries, keys, values and what reads it: the graph reshapes all heads to one width.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from edgedafl.graph.edit import attribute
from edgedafl.graph.pruning.tracer import Axis, Tracer

__all__ = ["cut_out", "multiply_values", "pick", "place_among_long", "regroup", "softmax", "split"]


def place_among_long(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int:
    """Where an axis is after sides of one have come and gone: it keeps its place among the longer ones.

    Examples:
        >>> place_among_long((2, 16, 1, 64), (2, 16, 64), 3)
        2
    """
    long = [place for place, side in enumerate(after) if side != 1]
    return long[sum(side != 1 for side in before[:axis])]


def regroup(t: Tracer, node: onnx.NodeProto, given: Axis) -> bool:
    """A reshape that takes the last axis apart, (..., heads, width), joins the last two, or moves sides of one.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,5,8] x) => (float[1,5,2,4] y)
        ...     <int64[4] sides = {1, 5, 2, 4}> { y = Reshape(x, sides) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> t = Tracer(model, {"x": (1, 5, 8), "y": (1, 5, 2, 4)})
        >>> regroup(t, model.graph.node[0], Axis(2, t.fresh(8)))
        True
        >>> t.values["y"].axis, len(t.values["y"].units)
        (2, 2)
    """
    before, after = t.shapes[node.input[0]], t.shapes[node.output[0]]
    stated = t.constant(node, 1)
    if stated is None or len(stated) != len(after):
        return False
    parts = _factors(after, before[-1])
    same = [side for side in after if side != 1] == [side for side in before if side != 1]
    if same and before[given.axis] != 1:
        place, units = place_among_long(before, after, given.axis), given.units
    elif given.axis == len(before) - 1 and len(parts) > 1:
        whole = t.follows_last(node.output[0], given.units)
        place = len(after) - (1 if whole else 2)
        by_place = np.moveaxis(given.units.reshape(parts), -1 if whole else -2, 0).reshape(after[place], -1)
        units = by_place[:, 0]
        for other in by_place.T[1:]:
            t.merge(units, other)
    elif given.axis == len(before) - 2 and after[-1] == before[-2] * before[-1]:
        place, units = len(after) - 1, np.repeat(given.units, before[-1])
    else:
        return False
    if stated[place] == 0 and place != given.axis:
        return False
    if stated[place] > 0:
        t.add_shape_entry(node.input[1], place, units)
    return t.put(node.output[0], place, units)


def _factors(sides: tuple[int, ...], whole: int) -> tuple[int, ...]:
    """The last sides whose product is the whole; empty where there are none."""
    return next((sides[start:] for start in reversed(range(len(sides))) if math.prod(sides[start:]) == whole), ())


def split(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Pieces of the channels, or all of them in every piece of another axis; equal pieces stay equal.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,5,8] x) => (float[1,5,4] y, float[1,5,4] z)
        ...     { y, z = Split<axis = 2, num_outputs = 2>(x) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> t = Tracer(model, {"x": (1, 5, 8), "y": (1, 5, 4), "z": (1, 5, 4)})
        >>> t.put("x", 2, t.fresh(8)), split(t, 0, model.graph.node[0]), len(t.values["z"].units)
        (True, True, 4)
    """
    given = t.values.get(node.input[0])
    if given is None:
        return True
    axis = int(attribute(node, "axis", 0)) % len(t.shapes[node.input[0]])
    if axis != given.axis:
        return all(t.put(name, given.axis, given.units) for name in node.output)
    ends = np.cumsum([t.shapes[name][axis] for name in node.output])
    pieces = np.split(given.units, ends[:-1])
    stated = t.constant(node, 1)
    if len(node.input) > 1 and stated is None:
        return False
    if stated is None and len({len(units) for units in pieces}) > 1:
        return False
    for place, (name, units) in enumerate(zip(node.output, pieces, strict=True)):
        if stated is None:
            t.merge(units, pieces[0])
        else:
            t.add_shape_entry(node.input[1], place, units)
        t.put(name, axis, units)
    return True


def cut_out(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """A piece of the channels between two constant places, or all of them from a piece of another axis.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,5,8] x) => (float[1,5,4] y)
        ...     <int64[1] start = {4}, int64[1] end = {8}, int64[1] axes = {2}> { y = Slice(x, start, end, axes) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> t = Tracer(model, {"x": (1, 5, 8), "y": (1, 5, 4)})
        >>> t.put("x", 2, t.fresh(8)), cut_out(t, 0, model.graph.node[0]), t.values["y"].units.tolist()
        (True, True, [4, 5, 6, 7])
    """
    given, axes = t.values.get(node.input[0]), t.constant(node, 3)
    if given is None:
        return True
    rank = len(t.shapes[node.input[0]])
    if axes is None or given.axis not in {int(a) % rank for a in axes.reshape(-1)}:
        return axes is not None and t.keep(node)
    start, end, step = t.constant(node, 1), t.constant(node, 2), t.constant(node, 4)
    if axes.size != 1 or start is None or end is None or (step is not None and step.reshape(-1)[0] != 1):
        return False
    first, last = int(start.reshape(-1)[0]), int(end.reshape(-1)[0])
    if min(first, last) < 0:
        return False
    t.add_shape_entry(node.input[1], 0, given.units[:first])
    if last < len(given.units):
        t.add_shape_entry(node.input[2], 0, given.units[:last])
    return t.put(node.output[0], given.axis, given.units[first:last])


def pick(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Entries of another axis than that of the channels.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,5,8] x) => (float[1,8] y)
        ...     <int64 first = {0}> { y = Gather<axis = 1>(x, first) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> t = Tracer(model, {"x": (1, 5, 8), "y": (1, 8)})
        >>> t.put("x", 2, t.fresh(8)), pick(t, 0, model.graph.node[0]), t.values["y"].axis
        (True, True, 1)
    """
    given = t.values.get(node.input[0])
    if given is None:
        return True
    axis, chosen = int(attribute(node, "axis", 0)) % len(t.shapes[node.input[0]]), t.constant(node, 1)
    if chosen is None or axis == given.axis:
        return False
    moved = chosen.ndim - 1 if axis < given.axis else 0
    return t.put(node.output[0], given.axis + moved, given.units)


def softmax(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """Shares along another axis; before opset 13 along all axes from the one that is stated.

    Examples:
        >>> model = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1,2,5,5] x) => (float[1,2,5,5] y) { y = Softmax<axis = 3>(x) }''')
        >>> t = Tracer(model, {"x": (1, 2, 5, 5), "y": (1, 2, 5, 5)})
        >>> t.put("x", 1, t.fresh(2)), softmax(t, 0, model.graph.node[0]), t.values["y"].axis
        (True, True, 1)
    """
    given = t.values.get(node.input[0])
    if given is None:
        return True
    axis = int(attribute(node, "axis", -1)) % len(t.shapes[node.input[0]])
    return given.axis < axis and t.keep(node)


def multiply_values(t: Tracer, index: int, node: onnx.NodeProto) -> bool:
    """A matrix product of two values, as of queries and keys.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,5,8] q, float[1,8,5] k) => (float[1,5,5] y)
        ...     { y = MatMul(q, k) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> t = Tracer(model, {"q": (1, 5, 8), "k": (1, 8, 5), "y": (1, 5, 5)})
        >>> t.put("q", 2, t.fresh(8)), t.put("k", 1, t.fresh(8)), multiply_values(t, 0, model.graph.node[0])
        (True, True, True)
        >>> "y" in t.values  # the channels are summed up
        False
    """
    one, other = (t.values.get(name) for name in node.input)
    rows, columns = (len(t.shapes[name]) - v.axis if v else 0 for name, v in zip(node.input, (one, other), strict=True))
    last = len(t.shapes[node.output[0]]) - 1
    if one is None and other is None:
        return True
    if one is not None and other is not None:
        if len(one.units) != len(other.units):
            return False
        summed, aside = (rows, columns) == (1, 2), rows == columns > 2
        if summed or aside:
            t.merge(one.units, other.units)
        return summed or (aside and t.put(node.output[0], last + 1 - rows, one.units))
    if one is not None:
        return rows == 2 and t.put(node.output[0], last - 1, one.units)
    return other is not None and columns == 1 and t.put(node.output[0], last, other.units)
