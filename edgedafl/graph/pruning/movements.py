"""What brings the values of a whole network, and of a cut one, to the moments that BatchNorms promise."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx
import torch
from torch import Tensor

from edgedafl.graph.canonicalize import IMAGE
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.moments import Movement, PromisedMoments
from edgedafl.graph.pruning.channels import ChannelMap, are_kept
from edgedafl.graph.pruning.layers import layer_of

__all__ = ["channels_left", "find_movements", "movements_of_cut", "written_axis"]


@torch.no_grad()
def find_movements(teacher: OnnxModule, images: Tensor, promised: Mapping[str, PromisedMoments]) -> dict[str, Movement]:
    """One movement for every value whose moments are promised, each behind those before it.

    Args:
        teacher: The whole network.
        images: (N,C,H,W) in model space; what one layer makes of all of them is in memory.
        promised: Moments of values on real data, see `graph.moments`.
    """
    found: dict[str, Movement] = {}
    if not promised:
        return found
    for walk in teacher.walk({IMAGE: images}):
        walk.run()
        name = walk.node.output[0]
        if name not in promised or written_axis(walk.node, teacher) is None:
            continue
        movement = Movement.towards(promised[name], walk.values[name])
        if movement is not None:
            found[name] = movement
            walk.values[name] = movement(walk.values[name])
    return found


def movements_of_cut(
    movements: Mapping[str, Movement],
    student: OnnxModule,
    graph: onnx.ModelProto,
    channels: ChannelMap,
    removed: Set[int],
) -> dict[str, Movement]:
    """The same movements for the channels that a cut has left.

    Args:
        movements: Of the whole network, by value.
        student: The cut network.
        graph: Its graph.
        channels: Of the whole network.
        removed: Units that are cut.
    """
    left = channels_left(channels, removed)
    found = {}
    for node in graph.graph.node:
        axis = written_axis(node, student) if node.output[0] in movements else None
        if axis is not None:
            found[node.output[0]] = movements[node.output[0]].of(left.get(axis))
    return found


def channels_left(channels: ChannelMap, removed: Set[int]) -> dict[tuple[str, int], Tensor | None]:
    """Places that stay along every axis of a weight that is cut; None where all do.

    Args:
        channels: Of the whole network.
        removed: Units that are cut.
    """
    return {(slot.initializer, slot.axis): _places(slot.units, removed) for slot in channels.slots}


def written_axis(node: onnx.NodeProto, module: OnnxModule) -> tuple[str, int] | None:
    """Weight, and its axis, that run over the channels which a layer or a BatchNorm writes; None for other nodes."""
    if node.op_type == "BatchNormalization":
        return node.input[1], 0
    layer = layer_of(node, module)
    return None if layer is None else (layer.weight, layer.written)


def _places(units: np.ndarray, removed: Set[int]) -> Tensor | None:
    stays = are_kept(units, removed)
    return None if stays.all() else torch.from_numpy(np.flatnonzero(stays))
