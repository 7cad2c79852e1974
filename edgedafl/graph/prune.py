"""Cutting channels out of a graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgedafl.graph.channels import ChannelMap

__all__ = ["cut"]


def cut(model: onnx.ModelProto, channels: ChannelMap, removed: set[int]) -> onnx.ModelProto:
    """A smaller graph without the removed units; every layer keeps its other weights as they are.

    Args:
        model: The graph that `channels` was traced on.
        channels: Its units.
        removed: Units to cut, of `channels.groups`.
    """
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    arrays = {t.name: numpy_helper.to_array(t) for t in smaller.graph.initializer}
    for slot in channels.slots:
        arrays[slot.initializer] = np.take(arrays[slot.initializer], np.flatnonzero(_kept(slot.units, removed)), slot.axis)
    for size in channels.sizes:
        arrays[size.initializer] = _replaced(arrays[size.initializer], size.axis, _kept(size.units, removed).sum())
    for front, behind in channels.pads:
        pads = arrays[front.initializer]
        pads = _replaced(pads, front.axis, _kept(front.units, removed).sum())
        arrays[front.initializer] = _replaced(pads, front.axis + len(pads) // 2, _kept(behind, removed).sum())
    for place, units in channels.depthwise:
        group = next(a for a in smaller.graph.node[place].attribute if a.name == "group")
        group.i = int(_kept(units, removed).sum())
    for tensor in smaller.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[tensor.name]), tensor.name))
    del smaller.graph.value_info[:]
    return smaller


def _kept(units: np.ndarray, removed: set[int]) -> np.ndarray:
    return np.array([unit not in removed for unit in units.tolist()], bool)


def _replaced(array: np.ndarray, place: int, value: int) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed
