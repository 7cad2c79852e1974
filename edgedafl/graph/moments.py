"""What BatchNorm layers promise about real data: mean and deviation of every channel behind them.

A BatchNorm's output had mean `beta` and deviation `|gamma|` on the training data, whatever came before it.
The file of a teacher that keeps its BatchNorms therefore tells what its layers read on data that nobody
can show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgedafl.graph.constants import with_constants_stored
from edgedafl.graph.edit import readers_of

__all__ = ["Movement", "PromisedMoments", "batch_norm_moments"]

_STRETCH = (0.25, 4.0)
"""How far a channel may be scaled to its promised deviation; dead channels have none to scale."""


@dataclass(frozen=True)
class PromisedMoments:
    """Of one value, by channel.

    Attributes:
        mean: (C,).
        deviation: At least 0 (C,).
    """

    mean: np.ndarray
    deviation: np.ndarray


def batch_norm_moments(model: onnx.ModelProto, network: onnx.ModelProto) -> dict[str, PromisedMoments]:
    """Moments of the outputs of all BatchNorms, by the name of the value in a network.

    Where a BatchNorm was folded into the layer before it, the same moments hold for what that layer makes
    now. It has the name that it had before, or the BatchNorm's: that depends on who has folded it.

    Args:
        model: A graph with BatchNormalization nodes; those whose scale or bias is computed are left out.
        network: The same network, rewritten.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,2,4,4] x) => (float[n,2,4,4] y)
        ...     <float[2] s = {1, 2}, float[2] b = {0, 5}, float[2] m = {3, 4}, float[2] v = {1, 1}>
        ...     { y = BatchNormalization(x, s, b, m, v) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> batch_norm_moments(model, model)["y"]
        PromisedMoments(mean=array([0., 5.]), deviation=array([1., 2.]))
    """
    names = _names_after_folding(model, network)
    stored = {t.name: t for t in with_constants_stored(model).graph.initializer}
    found = {}
    for node in model.graph.node:
        known = node.op_type == "BatchNormalization" and node.input[1] in stored and node.input[2] in stored
        if known and node.output[0] in names:
            scale, bias = (numpy_helper.to_array(stored[name]).astype(np.float64) for name in node.input[1:3])
            found[names[node.output[0]]] = PromisedMoments(bias.reshape(-1), np.abs(scale).reshape(-1))
    return found


def _names_after_folding(model: onnx.ModelProto, network: onnx.ModelProto) -> dict[str, str]:
    """Values of the network by the BatchNorm's output that they are."""
    made = {name for node in network.graph.node for name in node.output}
    before, after = _operators_behind(model), _operators_behind(network)
    found = {}
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        given, written = node.input[0], node.output[0]
        if written in made:
            found[written] = written
        elif given in made and before.get(given) == ["BatchNormalization"] and after.get(given) == before.get(written):
            found[written] = given
    return found


def _operators_behind(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Operators that read a value, by its name."""
    return {name: sorted(node.op_type for node in nodes) for name, nodes in readers_of(model).items()}


@dataclass(frozen=True)
class Movement:
    """What brings a value's channels to their promised moments.

    Attributes:
        scale: (1,C,1,1).
        shift: (1,C,1,1).
    """

    scale: Tensor
    shift: Tensor

    @classmethod
    def towards(cls, promised: PromisedMoments, value: Tensor) -> Movement | None:
        """For a value (N,C,H,W) of many images; None where it has another form."""
        if value.dim() != 4 or value.shape[1] != len(promised.mean):
            return None
        deviation, mean = torch.std_mean(value, (0, 2, 3))
        wanted = torch.from_numpy(promised.deviation).to(value)
        scale = (wanted / deviation.clamp_min(1e-6)).clamp(*_STRETCH)
        shift = torch.from_numpy(promised.mean).to(value) - scale * mean
        return cls(scale.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1))

    def of(self, places: Tensor | None) -> Movement:
        """The same for some of the channels."""
        if places is None:
            return self
        return Movement(self.scale.index_select(1, places), self.shift.index_select(1, places))

    def to(self, device: torch.device | str) -> Movement:
        """On a device."""
        return Movement(self.scale.to(device), self.shift.to(device))

    def __call__(self, value: Tensor) -> Tensor:
        """The moved value."""
        return torch.addcmul(self.shift, value, self.scale)
