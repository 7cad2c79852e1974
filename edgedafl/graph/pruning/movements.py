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

    Examples:
        >>> import numpy as np
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,2,8,8] y)
        ...     <float[2,1,1,1] w = {2, 3}, float[2] b = {0, 1}> { a = Conv(image, w, b)  y = Relu(a) }'''
        >>> network = OnnxModule(onnx.parser.parse_model(text))
        >>> promised = {"a": PromisedMoments(np.array([1.0, 2.0]), np.array([0.5, 0.5]))}
        >>> sorted(find_movements(network, torch.rand(8, 1, 8, 8), promised))
        ['a']
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

    Examples:
        >>> import numpy as np
        >>> import onnx
        >>> from edgedafl.graph.pruning import cut, trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,2,8,8] y)
        ...     <float[3,1,1,1] w = {1, 2, 3}, float[3] b = {0, 0, 0}, float[2,3,1,1] v = {1, 2, 3, 4, 5, 6}>
        ...     { a = Conv(image, w, b)  y = Conv(a, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> channels = trace_channels(model, {"image": (1, 1, 8, 8), "a": (1, 3, 8, 8), "y": (1, 2, 8, 8)})
        >>> promised = {"a": PromisedMoments(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.5, 0.5]))}
        >>> movements = find_movements(OnnxModule(model), torch.rand(8, 1, 8, 8), promised)
        >>> smaller = cut(model, channels, {0})
        >>> found = movements_of_cut(movements, OnnxModule(smaller), smaller, channels, {0})
        >>> {name: len(movement.scale) for name, movement in found.items()}
        {'a': 1}
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

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.pruning import trace_channels
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] x) => (float[n,1,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}, float[1,2,1,1] v = {3, 4}> { a = Conv(x, w)  y = Conv(a, v) }'''
        >>> shapes = {"x": (1, 1, 8, 8), "a": (1, 2, 8, 8), "y": (1, 1, 8, 8)}
        >>> channels = trace_channels(onnx.parser.parse_model(text), shapes)
        >>> channels_left(channels, {channels.groups[0][0]})
        {('w', 0): tensor([1]), ('v', 1): tensor([1]), ('v', 0): None}
    """
    return {(slot.initializer, slot.axis): _places(slot.units, removed) for slot in channels.slots}


def written_axis(node: onnx.NodeProto, module: OnnxModule) -> tuple[str, int] | None:
    """Weight, and its axis, that run over the channels which a layer or a BatchNorm writes; None for other nodes.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] x) => (float[n,2,8,8] y)
        ...     <float[2,1,1,1] w = {1, 2}> { a = Relu(x)  y = Conv(a, w) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> [written_axis(node, OnnxModule(model)) for node in model.graph.node]
        [None, ('w', 0)]
    """
    if node.op_type == "BatchNormalization":
        return node.input[1], 0
    layer = layer_of(node, module)
    return None if layer is None else (layer.weight, layer.written)


def _places(units: np.ndarray, removed: Set[int]) -> Tensor | None:
    stays = are_kept(units, removed)
    return None if stays.all() else torch.from_numpy(np.flatnonzero(stays))
