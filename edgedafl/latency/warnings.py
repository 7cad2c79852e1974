"""What makes a measurement doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgedafl.latency.statistics import medians_of_parts
from edgedafl.runs import LatencySummary

__all__ = ["CONTENDED", "THROTTLED", "measurement_warnings"]

CONTENDED, THROTTLED = "contended", "throttled"

# Above these the machine was not ours alone while measuring.
_OTHER_LOAD_LIMIT = 0.10
_STEAL_LIMIT = 0.01
_DRIFT_LIMIT = 0.05
# Clocks wander a little under every governor.
_CLOCK_LIMIT = 0.90
_PROCESS_LIMIT = 0.10


def measurement_warnings(raw: dict[str, Any], summaries: dict[str, LatencySummary]) -> tuple[str, ...]:
    """Sentences, the ones that begin with `contended` or `throttled` invalidate the figures.

    Args:
        raw: A device's `latency.json`.
        summaries: By precision.

    Examples:
        >>> measurement_warnings({"environment": {"other_load": 0.4}}, {})
        ('contended: other processes used 40% of a core',)
    """
    facts = raw.get("environment", {})
    found = [*_contention(facts), *_throttling(raw, facts)]
    for name, summary in summaries.items():
        if abs(summary.drift) > _DRIFT_LIMIT:
            found.append(f"{name} drifted by {summary.drift:+.1%} from the first to the last third")
        spread = _process_spread(raw, name)
        if spread is not None and spread > _PROCESS_LIMIT:
            found.append(f"medians of {name} differ by {spread:.1%} between processes")
    for name, check in raw.get("checks", {}).items():
        if not check["passed"]:
            found.append(f"{name} answers differ from the build machine's ({check['relative_error']:.2g})")
    if "int8" in summaries and facts.get("dot_products") is False:
        found.append("int8 gains more on processors with dot-product instructions, which this one has not")
    if raw.get("quick"):
        found.append("quick run: fewer samples than the protocol asks for")
    if raw.get("kind") == "emulated":
        found.append("emulated: these times say nothing about any device's speed")
    return tuple(found)


def _contention(facts: dict[str, Any]) -> Iterator[str]:
    other, steal = facts.get("other_load"), facts.get("steal_share")
    if other is not None and other > _OTHER_LOAD_LIMIT:
        yield f"{CONTENDED}: other processes used {other:.0%} of a core"
    if steal is not None and steal > _STEAL_LIMIT:
        yield f"{CONTENDED}: {steal:.1%} of the time was stolen by the host"


def _throttling(raw: dict[str, Any], facts: dict[str, Any]) -> Iterator[str]:
    """Clocks that fell, heat at its trip point, or the board's own word."""
    looks = raw.get("watch", [])
    clocks: dict[str, list[int]] = {}
    for look in looks:
        for policy, value in look.get("clocks_khz", {}).items():
            clocks.setdefault(policy, []).append(value)
    for policy, values in clocks.items():
        if min(values) < _CLOCK_LIMIT * values[0]:
            yield f"{THROTTLED}: the clock of {policy} fell from {values[0] / 1e6:.2f} to {min(values) / 1e6:.2f} GHz"
    said = facts.get("facts", {})
    for zone, limit in said.items():
        if zone.startswith("throttles_at.") and str(limit).isdigit():
            name = zone.removeprefix("throttles_at.")
            hottest = max((look.get("temperatures", {}).get(name, 0.0) for look in looks), default=0.0)
            if hottest >= int(limit) / 1000:
                yield f"{THROTTLED}: {name} reached {hottest:.1f} °C, where it throttles"
    now = said.get("throttled", "0x0")
    if str(now).startswith("0x") and int(str(now), 16) & 0x7:
        yield f"{THROTTLED}: the board reports under-voltage or throttling ({now})"


def _process_spread(raw: dict[str, Any], name: str) -> float | None:
    """Largest over smallest median of the processes, minus 1."""
    medians = medians_of_parts(raw, name)
    return max(medians) / min(medians) - 1 if len(medians) > 1 else None
