"""One schema for measured and estimated latency."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedafl.errors import MeasurementError
from edgedafl.latency.statistics import LatencySummary, ratio_of_medians, summarize

__all__ = ["Estimate", "LatencyFigure", "Measurement", "read_measurement"]

# Above these the machine was not ours alone while measuring.
OTHER_LOAD_LIMIT = 0.10
STEAL_LIMIT = 0.01
DRIFT_LIMIT = 0.05


@dataclass(frozen=True)
class Measurement:
    """Latency measured on a device.

    Attributes:
        device: Where, as the user named it.
        raw: The device's `latency.json`.
        summaries: By precision.
        warnings: What makes the figures doubtful.
    """

    device: str
    raw: dict[str, Any]
    summaries: dict[str, LatencySummary]
    warnings: tuple[str, ...] = ()
    kind: str = "measured"

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
            **{k: facts[k] for k in ("quick", "batch", "timed", "environment", "checks") if k in facts},
            "warm_up_seconds": facts.get("warm_up_seconds"),
            "seconds": facts.get("seconds"),
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


@dataclass(frozen=True)
class _Doubts:
    found: list[str] = field(default_factory=list)

    def add(self, condition: bool, text: str) -> None:
        if condition:
            self.found.append(text)


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
    return Measurement(device, raw, summaries, _judge(raw, summaries))


def _judge(raw: dict[str, Any], summaries: dict[str, LatencySummary]) -> tuple[str, ...]:
    doubts = _Doubts()
    facts = raw.get("environment", {})
    other, steal = facts.get("other_load"), facts.get("steal_share")
    doubts.add(
        other is not None and other > OTHER_LOAD_LIMIT, f"contended: other processes used {other or 0:.0%} of a core"
    )
    doubts.add(
        steal is not None and steal > STEAL_LIMIT, f"contended: {steal or 0:.1%} of the time was stolen by the host"
    )
    for name, summary in summaries.items():
        moved = abs(summary.drift)
        doubts.add(moved > DRIFT_LIMIT, f"{name} drifted by {summary.drift:+.1%} from the first to the last third")
    for name, check in raw.get("checks", {}).items():
        doubts.add(
            not check["passed"], f"{name} answers differ from the build machine's ({check['relative_error']:.2g})"
        )
    doubts.add(bool(raw.get("quick")), "quick run: fewer samples than the protocol asks for")
    return tuple(doubts.found)
