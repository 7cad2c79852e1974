"""From a device's `latency.json` to a judged measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgedafl.errors import MeasurementError, reason_of
from edgedafl.latency.statistics import early_stopping_bound, medians_of_parts, ratio_of_medians, summarize
from edgedafl.latency.warnings import CONTENDED, THROTTLED, measurement_warnings
from edgedafl.runs import EMULATED, MeasuredLatency
from edgedafl.runs.json_form import read_result

__all__ = ["read_measurement"]

_MLPERF_PERCENTILE = 0.90
_REFERENCE = "fp32"
_AS_IT_IS = (
    "batch", "checks", "environment", "layers", "memory_bytes", "processes", "quick", "seconds", "timed",
    "warm_up_seconds",
)  # fmt: skip


def read_measurement(path: Path, device: str) -> MeasuredLatency:
    """Read what a device measured, and judge it.

    Args:
        path: The device's `latency.json`.
        device: Where, as the user named it.

    Raises:
        MeasurementError: If it is missing or not of the known schema.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "latency.json"
        >>> _ = path.write_text(json.dumps({"schema": 1, "samples_ns": {"int8": [2_000_000] * 70}}))
        >>> read_measurement(path, "pi-in-the-lab").summaries["int8"].median
        2000000.0
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
        samples = {name: values for name, values in raw["samples_ns"].items() if values}
        summaries = {name: summarize(values, raw.get("calls_per_sample", 1)) for name, values in samples.items()}
        if raw.get("schema") != 1 or not summaries:
            raise MeasurementError(f"{str(path)!r} holds no samples of the known schema.", "Run the profile again.")
        doubts = measurement_warnings(raw, summaries)
        known = {name: raw[name] for name in _AS_IT_IS if raw.get(name) is not None}
        return read_result(
            {
                **known,
                "kind": EMULATED if raw.get("kind") == EMULATED else "measured",
                "device": device,
                "summaries": summaries,
                "steadiest": {name: min(medians_of_parts(raw, name)) for name in summaries},
                "warnings": doubts,
                "invalid": [text for text in doubts if text.startswith((CONTENDED, THROTTLED))],
                "mlperf_p90": _mlperf(raw),
                "speed_up": {name: _speed_up(samples, name) for name in samples if name != _REFERENCE},
            },
            MeasuredLatency,
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise MeasurementError(
            f"{str(path)!r} is not a latency result: {reason_of(error)}.", "Run the profile again."
        ) from error


def _mlperf(raw: dict[str, Any]) -> dict[str, float]:
    """90th percentile in nanoseconds that early stopping grants, where MLPerf's rules were followed."""
    if not raw.get("mlperf"):
        return {}
    bounds = {name: early_stopping_bound(v, _MLPERF_PERCENTILE) for name, v in raw["samples_ns"].items()}
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _speed_up(samples: dict[str, list[int]], precision: str) -> float | None:
    """How many times faster a precision is than fp32 of the same run."""
    return ratio_of_medians(samples[_REFERENCE], samples[precision]) if _REFERENCE in samples else None
