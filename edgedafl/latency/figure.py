"""One schema for measured and estimated latency."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedafl.errors import MeasurementError
from edgedafl.latency.statistics import (
    LatencySummary,
    early_stopping_bound,
    medians_of_parts,
    ratio_of_medians,
    summarize,
)
from edgedafl.latency.verdict import CONTENDED, THROTTLED, doubts_of

__all__ = ["EMULATED", "Estimate", "LatencyFigure", "Measurement", "read_measurement"]

EMULATED = "emulated"
_MLPERF_PERCENTILE = 0.90


@dataclass(frozen=True)
class Measurement:
    """Latency measured on a device.

    Attributes:
        device: Where, as the user named it.
        raw: The device's `latency.json`.
        summaries: By precision.
        warnings: What makes the figures doubtful.
        kind: `measured`, or `emulated` where the times say nothing about a device.
    """

    device: str
    raw: dict[str, Any]
    summaries: dict[str, LatencySummary]
    warnings: tuple[str, ...] = ()
    kind: str = "measured"

    @property
    def steadiest(self) -> dict[str, float]:
        """Lowest median of the processes or passes in nanoseconds: disturbance only ever adds."""
        return {name: min(medians_of_parts(self.raw, name)) for name in self.summaries}

    @property
    def invalid(self) -> tuple[str, ...]:
        """Those of the warnings that forbid to use the figures."""
        return tuple(w for w in self.warnings if w.startswith((CONTENDED, THROTTLED)))

    @property
    def mlperf(self) -> dict[str, float]:
        """90th percentile in nanoseconds that MLPerf's early stopping grants, by precision."""
        if not self.raw.get("mlperf"):
            return {}
        bounds = {n: early_stopping_bound(v, _MLPERF_PERCENTILE) for n, v in self.raw["samples_ns"].items()}
        return {name: bound for name, bound in bounds.items() if bound is not None}

    def speed_up(self, precision: str, reference: str = "fp32") -> float | None:
        """How many times faster a precision is than another of the same run."""
        samples = self.raw["samples_ns"]
        if precision not in samples or reference not in samples:
            return None
        return ratio_of_medians(samples[reference], samples[precision])

    def to_dict(self) -> dict[str, Any]:
        """A JSON form without the raw samples; those stay in the profile's file."""
        facts = {k: v for k, v in self.raw.items() if k != "samples_ns"}
        return {
            "kind": self.kind,
            "device": self.device,
            "summaries": {name: s.to_dict() for name, s in self.summaries.items()},
            "warnings": list(self.warnings),
            "invalid": list(self.invalid),
            **{k: facts[k] for k in ("quick", "batch", "timed", "environment", "checks") if k in facts},
            "warm_up_seconds": facts.get("warm_up_seconds"),
            "seconds": facts.get("seconds"),
            "processes": facts.get("processes", 1),
            "layers": facts.get("layers") or {},
            "mlperf_p90": self.mlperf,
            "speed_up": {p: self.speed_up(p) for p in self.summaries if p != "fp32"},
        }


@dataclass(frozen=True)
class Estimate:
    """Latency computed, not measured.

    Attributes:
        device: Target name.
        median: Point estimate in nanoseconds.
        low: Lower end of the band.
        high: Upper end.
        tier: A (best) to D.
        basis: What it rests on.
    """

    device: str
    median: float
    low: float
    high: float
    tier: str
    basis: str
    kind: str = "estimate"

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return dict(vars(self))


LatencyFigure = Measurement | Estimate


def read_measurement(path: Path, device: str) -> Measurement:
    """Read a device's `latency.json` and judge it.

    Raises:
        MeasurementError: If it is missing or not of the known schema.
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
        samples = {name: values for name, values in raw["samples_ns"].items() if values}
        summaries = {name: summarize(values) for name, values in samples.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise MeasurementError(f"{str(path)!r} is no latency result: {error}.", "Run the profile again.") from error
    if raw.get("schema") != 1 or not summaries:
        raise MeasurementError(f"{str(path)!r} holds no samples of the known schema.", "Run the profile again.")
    kind = EMULATED if raw.get("kind") == EMULATED else "measured"
    return Measurement(device, raw, summaries, doubts_of(raw, summaries), kind)
