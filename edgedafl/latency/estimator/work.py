"""What a network asks of a processor: nine sums over its layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from edgedafl.latency.estimator.processors import ProcessorSpec

__all__ = ["KINDS", "CostedLayer", "seconds_at_peak", "work_of", "work_of_table"]

KINDS = (
    "conv3x3", "conv3x3_wide", "conv", "pointwise", "depthwise", "grouped", "linear_weights", "conv_elements",
    "other_elements", "layers",
)  # fmt: skip
"""Multiply-accumulates by layer kind, those of 3x3 convolutions that read many channels apart; elements
moved by linear layers, by convolutions and by layers without weights (pooling, additions,
concatenations); count of layers."""

_MACS = 6
# A 3x3 kernel transforms what it reads and writes, or gathers it in patches: much of the time where few
# channels share that. In eight bits, wide convolutions take half to a fifth of the time per multiply-accumulate.
_WIDE = 192
_WEIGHT_BYTES = {"int8": 1, "fp16": 2, "fp32": 4}
# Kernels of eight bits add up in 32 and hand floats to layers that have no integer form.
_ELEMENT_BYTES = {"int8": 4, "fp16": 2, "fp32": 4}
_LAYER_SECONDS = 1e-5  # per layer at 1 GHz; only sets the scale


class CostedLayer(Protocol):
    """Sizes of one layer; both the torch and the ONNX counters give these."""

    @property
    def kind(self) -> str:
        """Layer kind."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""

    @property
    def weights(self) -> int:
        """Count of weights."""

    @property
    def elements(self) -> int:
        """Elements read and written."""

    @property
    def channels(self) -> tuple[int, int]:
        """Channels in and out."""


def work_of(layers: Iterable[CostedLayer]) -> np.ndarray:
    """Sums of a network's layers, in the order of KINDS.

    Examples:
        >>> from edgedafl.module_cost import LayerSize
        >>> layers = [LayerSize("conv3x3", 1_000, 27, 300, 800, (3, 8)), LayerSize("linear", 80, 80, 8, 10, (8, 10))]
        >>> sums = dict(zip(KINDS, work_of(layers).tolist(), strict=True))
        >>> sums["conv3x3"], sums["linear_weights"], sums["layers"]
        (1000.0, 80.0, 2.0)
    """
    found = dict.fromkeys(KINDS, 0.0)
    for layer in layers:
        if layer.kind == "linear":
            found["linear_weights"] += layer.weights
        else:
            kind = layer.kind if layer.kind in KINDS else "conv"
            found[_by_width(kind, layer.channels[0])] += layer.macs
            found["conv_elements" if layer.macs else "other_elements"] += layer.elements + layer.weights
        found["layers"] += 1
    return np.array([found[kind] for kind in KINDS])


def work_of_table(layers: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """The same from a published layer table.

    Args:
        layers: With `op` (conv, pw, dw, gconv, fc, ...), `k`, `stride`, `cin`, `macs`, `params`,
            `in_elements` and `out_elements`.

    Examples:
        >>> layer = {"op": "conv", "k": 3, "stride": 1, "cin": 3, "macs": 1_000, "params": 27}
        >>> float(work_of_table([layer | {"in_elements": 300, "out_elements": 800}])[0])
        1000.0
    """
    found = dict.fromkeys(KINDS, 0.0)
    names = {"conv": "conv", "pw": "pointwise", "dw": "depthwise", "gconv": "grouped"}
    for layer in layers:
        op = str(layer["op"])
        found["layers"] += 1
        if op == "fc":
            found["linear_weights"] += layer["params"]
            continue
        elements = layer["in_elements"] + layer["out_elements"] + layer["params"]
        found["conv_elements" if op in names else "other_elements"] += elements
        if op in names:
            plain = op == "conv" and layer["k"] == 3 and layer["stride"] == 1
            found[_by_width("conv3x3" if plain else names[op], layer["cin"])] += layer["macs"]
    return np.array([found[kind] for kind in KINDS])


def _by_width(kind: str, channels: int) -> str:
    return "conv3x3_wide" if kind == "conv3x3" and channels > _WIDE else kind


def seconds_at_peak(work: np.ndarray, place: ProcessorSpec, precision: str) -> np.ndarray:
    """What each sum would take at the processor's peak: the design row of the estimator.

    Examples:
        >>> from edgedafl.latency.estimator.processors import find_processor
        >>> place = find_processor("Raspberry Pi 4", precision="fp32")
        >>> seconds = seconds_at_peak(np.full(len(KINDS), 1e6), place, "fp32")
        >>> seconds.shape, bool((seconds > 0).all())
        ((10,), True)
    """
    row = work.astype(float)
    row[:_MACS] /= place.macs
    row[_MACS] *= _WEIGHT_BYTES[precision] / place.bandwidth
    row[_MACS + 1 : _MACS + 3] *= _ELEMENT_BYTES[precision] / place.bandwidth
    row[_MACS + 3] *= _LAYER_SECONDS / place.clock
    return row
