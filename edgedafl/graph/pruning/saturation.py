"""Where an activation makes no difference: what a layer writes below a ReLU's zero, or beyond a Clip's bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgedafl.graph.edit import attribute, readers_of

__all__ = ["Bounds", "activation_bounds"]

_ONE_SIDED = {"Relu": 0.0, "HardSwish": -3.0}
_COUNTED = 0.1
"""Share of an error that counts beyond the bounds: images of other kinds may come back within them."""


@dataclass(frozen=True)
class Bounds:
    """An activation's range: all values up to `low` come out alike, and all from `high` on.

    Attributes:
        low: A number, or one per value.
        high: Likewise; infinite for ReLUs and hard-swishes.
    """

    low: float | Tensor
    high: float | Tensor

    def goal(self, wanted: Tensor, made: Tensor) -> Tensor:
        """What to come nearer to: what is wanted, but where that is beyond a bound, what is made may be as well.

        Args:
            wanted: What the whole network makes.
            made: What the cut one makes.

        Examples:
            >>> ReLU = Bounds(0.0, math.inf)
            >>> ReLU.goal(torch.tensor([-2.0, -2.0, 3.0]), torch.tensor([-1.0, 1.0, 1.0]))
            tensor([-1.1000, -0.2000,  3.0000])
        """
        low, high = (torch.as_tensor(bound).to(wanted) for bound in (self.low, self.high))
        allowed = torch.where(wanted <= low, torch.minimum(made, low), wanted)
        allowed = torch.where(wanted >= high, torch.maximum(made, high), allowed)
        return allowed + _COUNTED * (wanted - allowed)


def activation_bounds(graph: onnx.ModelProto) -> Mapping[str, Bounds]:
    """Bounds of the activations that values go to, and to nothing else, by value.

    Args:
        graph: The network.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1] x) => (float[1,1] y)
        ...     <float[1,1] w = {1}, float low = {0}, float high = {6}>
        ...     { a = MatMul(x, w)  b = Relu(a)  c = MatMul(b, w)  y = Clip(c, low, high) }'''
        >>> activation_bounds(onnx.parser.parse_model(text))
        {'a': Bounds(low=0.0, high=inf), 'c': Bounds(low=0.0, high=6.0)}
    """
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    outputs = {output.name for output in graph.graph.output}
    found = {}
    for name, behind in readers_of(graph).items():
        if len(behind) == 1 and behind[0].input[0] == name and name not in outputs:
            bounds = _bounds_of(behind[0], stored)
            if bounds is not None:
                found[name] = bounds
    return found


def _bounds_of(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> Bounds | None:
    """None of another node, of a Clip whose bounds are computed, and of a HardSigmoid that does not rise."""
    if node.op_type in _ONE_SIDED:
        return Bounds(_ONE_SIDED[node.op_type], math.inf)
    if node.op_type == "HardSigmoid":
        slope, middle = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
        return Bounds(-middle / slope, (1 - middle) / slope) if slope > 0 else None
    if node.op_type != "Clip":
        return None
    bounds = [attribute(node, "min", -math.inf), attribute(node, "max", math.inf)]  # before opset 11
    for place, name in enumerate(node.input[1:]):
        if name and name not in stored:
            return None
        if name:
            bounds[place] = float(numpy_helper.to_array(stored[name]).reshape(()))
    return Bounds(*bounds)
