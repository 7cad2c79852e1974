"""Cutting channels out of a graph."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx
from onnx import numpy_helper

from edgedafl.graph.edit import copy_of
from edgedafl.graph.pruning.channels import ChannelMap, are_kept

__all__ = ["cut"]


def cut(model: onnx.ModelProto, channels: ChannelMap, removed: Set[int]) -> onnx.ModelProto:
    """A smaller graph without the removed units; what is left of every weight is as it was.

    Args:
        model: The graph that `channels` was traced on.
        channels: Its units.
        removed: Units to cut, of `channels.groups`.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.pruning import trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] x) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[1,2,1,1] v = {3, 4}> { a = Conv(x, w)  y = Conv(a, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> channels = trace_channels(model, {"x": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)})
        >>> [list(tensor.dims) for tensor in cut(model, channels, {channels.groups[0][0]}).graph.initializer]
        [[1, 1, 1, 1], [1, 1, 1, 1]]
    """

    def kept(units: np.ndarray) -> np.ndarray:
        return np.flatnonzero(are_kept(units, removed))

    smaller = copy_of(model)
    arrays = {t.name: numpy_helper.to_array(t).copy() for t in smaller.graph.initializer}
    for slot in channels.slots:
        arrays[slot.initializer] = np.take(arrays[slot.initializer], kept(slot.units), slot.axis)
    for size in channels.sizes:
        arrays[size.initializer][size.axis] = len(kept(size.units))
    for padding in channels.paddings:
        pads = arrays[padding.initializer]
        pads[padding.axis] = len(kept(padding.before))
        pads[padding.axis + len(pads) // 2] = len(kept(padding.behind))
    for index, units in channels.depthwise:
        group = next(a for a in smaller.graph.node[index].attribute if a.name == "group")
        group.i = len(kept(units))
    for tensor in smaller.graph.initializer:
        # Scalars stay scalars: `np.ascontiguousarray` would make vectors of them.
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(arrays[tensor.name], order="C"), tensor.name))
    del smaller.graph.value_info[:]
    return smaller
