"""Latency of a student on a target that is not attached.

A sum over layers: multiply-accumulates over a share of peak, bytes over bandwidth, and a constant
per layer. The shares are per core family and layer kind, from published measurements; a plain
roofline with shares of 1 would be two to three times too fast on every device. All estimates of
today's targets rest on rows of other runtimes or boards, so they are tier D: the truth lies
within the factor `band` in nine of ten cases, at best.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any, Protocol

from edgedafl.latency.figure import Estimate
from edgedafl.targets import Target

__all__ = ["CostedLayer", "estimate_latency"]

_BYTES = {"int8": 1, "fp16": 2, "fp32": 4}


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


@cache
def _families() -> dict[str, Any]:
    text = resources.files("edgedafl.latency.data").joinpath("families.json").read_text("utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def estimate_latency(layers: Iterable[CostedLayer], target: Target, precision: str) -> Estimate:
    """Estimate one image's latency at batch 1 with one thread (CPU) or one stream (GPU)."""
    device = target.device
    rows = list(layers)
    seconds = _gpu(rows, device, precision) if device["kind"] == "gpu" else _cpu(rows, device, precision)
    nanoseconds, band = seconds * 1e9, float(device["band"])
    return Estimate(
        device=target.name,
        median=nanoseconds,
        low=nanoseconds / band,
        high=nanoseconds * band,
        tier=str(device["tier"]),
        basis=str(device["source"]),
    )


def _gpu(rows: list[CostedLayer], device: dict[str, Any], precision: str) -> float:
    """Small batches on GPUs are bound by launches: a floor per layer, plus work at low efficiency."""
    peak = device["int8_tops"] if precision == "int8" else device["fp16_tflops"]
    rate = peak * 1e12 / 2 * device["efficiency"]
    total = 0.0
    for row in rows:
        moved = (row.weights + row.elements) * _BYTES[precision]
        total += max(row.macs / rate, moved / (device["bandwidth_gb_s"] * 1e9))
        total += device["layer_overhead_us"] * 1e-6
    return total


def _cpu(rows: list[CostedLayer], device: dict[str, Any], precision: str) -> float:
    family = _families()[device["family"]]
    shares = family["share_of_peak"]["int8" if precision == "int8" else "float"]
    macs_per_second = device["clock_ghz"] * 1e9 * device["lanes"]
    total = 0.0
    for row in rows:
        total += row.macs / (macs_per_second * shares.get(row.kind, shares["conv"]))
        total += (row.weights + row.elements) * _BYTES[precision] / (device["bandwidth_gb_s"] * 1e9)
        total += family["layer_us"] * 1e-6 / device["clock_ghz"]
    return total
