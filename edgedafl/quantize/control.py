"""Accuracy control: the layers that suffer most stay float until the drop holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from edgedafl.quantize.fidelity import Fidelity, Judge
from edgedafl.quantize.ptq import quantize_graph, weighted_nodes
from edgedafl.targets import QuantizationScheme

__all__ = ["Controlled", "KeptLayer", "keep_worst_layers", "layer_sensitivities"]

# Ranges are looked at and probes asked again for every layer; fewer images rank layers as well.
_IMAGES = 64
_PROBES = 256


@dataclass(frozen=True)
class KeptLayer:
    """A weighted layer that stays float.

    Attributes:
        node: Its node's name.
        sensitivity: Mean absolute change of the scores when it alone runs in integers.
        agreement: With the teacher once it and those before it stay float, in [0, 1].
    """

    node: str
    sensitivity: float
    agreement: float


@dataclass(frozen=True)
class Controlled:
    """A model of mixed precision.

    Attributes:
        model: The graph.
        fidelity: Of it.
        kept: What stays float, worst first.
        holds: Whether the drop holds.
    """

    model: onnx.ModelProto
    fidelity: Fidelity
    kept: tuple[KeptLayer, ...]
    holds: bool


def layer_sensitivities(
    model: onnx.ModelProto, scheme: QuantizationScheme, images: np.ndarray, method: str, judge: Judge
) -> dict[str, float]:
    """Change of the scores when one weighted layer at a time is quantized, by node name."""
    nodes = weighted_nodes(model)
    found = {}
    for node in nodes:
        others = [name for name in nodes if name != node]
        alone = quantize_graph(model, scheme, images[:_IMAGES], method, exclude=others)
        found[node] = judge.distance(alone, most=_PROBES)
    return found


def keep_worst_layers(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    images: np.ndarray,
    method: str,
    judge: Judge,
    holds: Callable[[Fidelity], bool],
) -> Controlled:
    """Take layers out of the integers, worst first, until `holds` is satisfied or none is left.

    Args:
        model: Float32 graph at batch 1.
        scheme: The target's integer scheme.
        images: Calibration images in model space.
        method: Calibration method.
        judge: By which sensitivity and agreement are measured.
        holds: Says whether a model is near enough.
    """
    sensitivities = layer_sensitivities(model, scheme, images, method, judge)
    worst = sorted(sensitivities, key=lambda node: -sensitivities[node])
    kept: list[KeptLayer] = []
    candidate, fidelity = model, Fidelity(judge.reference, 0.0)
    for count in range(1, len(worst) + 1):
        candidate = quantize_graph(model, scheme, images, method, exclude=worst[:count])
        fidelity = judge.of(candidate)
        node = worst[count - 1]
        kept.append(KeptLayer(node, sensitivities[node], fidelity.agreement))
        if holds(fidelity):
            return Controlled(candidate, fidelity, tuple(kept), True)
    return Controlled(candidate, fidelity, tuple(kept), False)
