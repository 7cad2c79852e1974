"""Waypoints of a network: feature maps that everything behind them depends on.

Where a network branches, no single value carries what it knows; between its blocks one does. There
two networks of different makes can be compared: each has summed up the image in one feature map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from edgedafl.graph.canonicalize import IMAGE

__all__ = ["Bottleneck", "Step", "bottlenecks", "graph_bottlenecks"]

_WEIGHTED = {"Conv", "Gemm", "MatMul"}
# These read channels on the second axis.
_READERS = {"AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean"}
_SHAPES = {"Shape", "Size"}


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        inputs: Names of the values it reads.
        outputs: Names of the values it makes.
        weighted: Whether it is a convolution or a linear layer.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    weighted: bool


@dataclass(frozen=True)
class Bottleneck:
    """A feature map.

    Attributes:
        name: Of the value.
        channels: C.
        size: (H, W).
    """

    name: str
    channels: int
    size: tuple[int, int]


def bottlenecks(steps: Sequence[Step], start: str, shapes: Mapping[str, Sequence[int]]) -> list[Bottleneck]:
    """Feature maps that everything behind them depends on, the last between one weighted layer and the next.

    Args:
        steps: In the order in which they run.
        start: The value that they begin with.
        shapes: Of the values that may be waypoints; maps (N,C,H,W) of more than one position are.

    Examples:
        >>> steps = [Step(["x"], ["a"], True), Step(["a"], ["b"], False), Step(["b"], ["y"], True)]
        >>> bottlenecks(steps, "x", {"a": (1, 8, 4, 4), "b": (1, 8, 4, 4)})
        [Bottleneck(name='b', channels=8, size=(4, 4))]
    """
    maps = {name: s for name, s in shapes.items() if len(s) == 4 and s[2] * s[3] > 1}
    last = {name: place for place, step in enumerate(steps) for name in step.inputs}
    live, depending = {start}, {start}
    found: dict[int, str] = {}
    weighted = 0
    for place, step in enumerate(steps):
        if depending.intersection(step.inputs):
            weighted += step.weighted
            depending.update(step.outputs)
            live.update(step.outputs)
        live = {name for name in live if last.get(name, -1) > place}
        only = next(iter(live)) if len(live) == 1 else ""
        if weighted and only in maps:
            found[weighted] = only
    return [Bottleneck(name, maps[name][1], (maps[name][2], maps[name][3])) for name in dict.fromkeys(found.values())]


def graph_bottlenecks(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[Bottleneck]:
    """Those of a graph, see `portable`, that layers read as maps of channels.

    Args:
        model: The graph.
        shapes: Of its values, for one image.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,1,8,8] image) => (float[n,1,8,8] y)
        ...     <float[1,1,1,1] w = {2}> { a = Conv(image, w)  b = Relu(a)  y = Conv(b, w) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> graph_bottlenecks(model, {"a": (1, 1, 8, 8), "b": (1, 1, 8, 8)})
        [Bottleneck(name='b', channels=1, size=(8, 8))]
    """
    steps, read = [], set()
    for node in model.graph.node:
        # What only asks for a shape depends on no pixel.
        inputs = [] if node.op_type in _SHAPES else list(node.input)
        steps.append(Step(inputs, list(node.output), node.op_type in _WEIGHTED))
        if node.op_type in _READERS:
            read.add(node.input[0])
    return bottlenecks(steps, IMAGE, {name: shapes[name] for name in read if name in shapes})
