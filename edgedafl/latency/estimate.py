"""Latency of a student on a target that is not attached.

Two sources, the nearer one wins: a device's own model, fitted to small networks that were measured
on it (`device calibrate`, tier A), else published rows of the target's chip or of related ones. Every
estimate says which, and carries the factor within which the truth lies in nine of ten cases.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from edgedafl.errors import UsageError
from edgedafl.latency.estimator import (
    CostedLayer,
    DeviceModel,
    ProcessorSpec,
    Published,
    Row,
    find_processor,
    packaged_rows,
    work_of,
)
from edgedafl.runs import Estimate
from edgedafl.targets import Target

__all__ = ["estimate_latency"]

# Runtimes as published tables name them.
_RUNTIMES = {
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "TensorRT",
    "executorch": "XNNPACK",
    "litert": "TFLite+XNNPACK",
    "openvino": "OpenVINO",
}


def estimate_latency(
    layers: Sequence[CostedLayer], target: Target, precision: str, model: DeviceModel | None = None
) -> Estimate:
    """Estimate one image's latency at batch 1 with one thread (CPU) or one stream (GPU).

    Args:
        layers: The student's, by either counter.
        target: The target.
        precision: `fp32`, `fp16` or `int8`.
        model: Of the very device, where it was calibrated.

    Raises:
        UsageError: If nothing known is near enough.

    Examples:
        >>> from edgedafl.module_cost import module_layers
        >>> from edgedafl.students import build_student
        >>> from edgedafl.targets import find_target
        >>> layers = module_layers(build_student("resnet8", (3, 32, 32), 10).module, (3, 32, 32))
        >>> found = estimate_latency(layers, find_target("rpi4"), "int8")
        >>> found.low < found.median < found.high
        True
    """
    if model is not None and precision in model.fits:
        found = model.predict(layers, precision)
        return _estimate(model.device, found.seconds, found.band, found.tier, found.basis)
    if not target.device:
        raise UsageError(
            f"{target.title}: nothing is known of its speed.", "Measure it, or describe its processor under [device]."
        )
    place = _place(target, precision)
    runtime = _RUNTIMES[target.runtime]
    known = _rows_of_kin(place, runtime, precision)
    own = [row for row in known if row.place.name == place.name]
    floats: list[Row] = []
    if precision == "int8":
        in_float = _rows_of_kin(place, runtime, "fp32") or _rows_of_kin(place, runtime, "fp16")
        floats = [row for row in in_float if row.place.name == place.name]
    prediction = _published().predict(work_of(layers), place, precision, runtime, own=own, related=known, floats=floats)
    return _estimate(target.name, prediction.seconds, prediction.band, prediction.tier, prediction.basis)


def _estimate(device: str, seconds: float, band: float, tier: str, basis: str) -> Estimate:
    nanoseconds = seconds * 1e9
    return Estimate(device, nanoseconds, nanoseconds / band, nanoseconds * band, tier, basis)


@functools.cache
def _published() -> Published:
    return Published(packaged_rows())


def _rows_of_kin(place: ProcessorSpec, runtime: str, precision: str) -> list[Row]:
    return [
        row
        for row in packaged_rows()
        if (row.runtime, row.precision) == (runtime, precision)
        and (row.place.chip, row.place.threads) == (place.chip, place.threads)
    ]


def _place(target: Target, precision: str) -> ProcessorSpec:
    facts: dict[str, Any] = target.device
    if "chip" in facts:
        place = find_processor(facts["chip"], precision=precision, backend=facts.get("kind", "cpu"))
        if place is None:
            raise UsageError(
                f"{target.title}: nothing is known of the chip {facts['chip']!r} in {precision}.",
                "Choose another precision, or give family, lanes, clock_ghz and bandwidth_gb_s under [device].",
            )
        return place
    factor = {"fp32": 1, "fp16": 1, "int8": 2}[precision]
    peak = facts["clock_ghz"] * 1e9 * facts["lanes"] * factor
    return ProcessorSpec(
        target.name, target.name, facts["family"], peak, facts["bandwidth_gb_s"] * 1e9, facts["clock_ghz"], 1, True
    )
