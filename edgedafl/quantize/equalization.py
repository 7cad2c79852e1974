"""Channels of like size before integers are made of them.

Integers of an activation are spread over all its channels: where one of them is a hundred times as large as the
others, these are left two of eight bits. A factor on each channel, which the layers that write and read it take up,
changes nothing that the network answers. After cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721,
section 4.1) and, in that what is halved in the activation is half the way only, SmoothQuant (Xiao et al. 2022,
arXiv 2211.10438, eq. 4): all of the way left real images no room, and weights as uneven as the activations had been.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from edgedafl.graph.scaling import find_scaling, rescaled
from edgedafl.quantize.ranges import every_value

__all__ = ["FEWEST_BITS", "equalized"]

FEWEST_BITS = 7.0
"""Of a weight on average: with fewer, what evens out activations costs more in weights (docs/experiments.md)."""
_IMAGES = 48
_SHARE = 0.5
_LEAST = 1e-4
"""Of the largest channel, so that no factor is above 100."""


def equalized(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """A copy whose channels are nearer to each other in size; it answers the same.

    Args:
        model: Float32 graph at batch 1.
        images: float32 (N,C,H,W) in model space; at most 48 of them, evenly spread, are looked at.

    Examples:
        >>> from onnx import numpy_helper
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1,2,2] x) => (float[1,1,2,2] y)
        ...     <float[2,1,1,1] w = {1, 100}, float[1,2,1,1] v = {1, 1}>
        ...     { a = Conv(x, w)  b = Relu(a)  y = Conv(b, v) }'''
        >>> even = equalized(onnx.parser.parse_model(text), np.ones((4, 1, 2, 2), np.float32))
        >>> [numpy_helper.to_array(tensor).ravel().round(3) for tensor in even.graph.initializer]
        [array([ 10., 100.], dtype=float32), array([0.1, 1. ], dtype=float32)]
    """
    reach, shapes = _reach(model, images)
    scaling = find_scaling(model, shapes)
    largest, whole = np.zeros(len(scaling.free)), np.zeros(len(scaling.free))
    for name, units in scaling.values.items():
        if math.prod(shapes[name][2:]) > 1:  # a number per image is too few to know a channel by
            np.maximum.at(largest, units, reach[name])
            np.maximum.at(whole, units, reach[name].max(initial=0.0))
    factors = np.ones(len(largest))
    seen = largest > 0
    factors[seen] = (whole[seen] / np.maximum(largest[seen], _LEAST * whole[seen])) ** _SHARE
    return rescaled(model, scaling, factors)


def _reach(model: onnx.ModelProto, images: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """The largest magnitude of every channel of every float value, and the values' shapes."""
    reach: dict[str, np.ndarray] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for values in every_value(model, images, _IMAGES):
        for name, value in values.items():
            shapes[name] = value.shape
            if value.ndim > 1:
                own = np.abs(value).reshape(*value.shape[:2], -1).max((0, 2), initial=0.0)
                reach[name] = np.maximum(reach.get(name, 0.0), own)
    return reach, shapes
