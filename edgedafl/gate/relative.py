"""Limits relative to a baseline: how much a model may grow, slow down or lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgedafl.config import GateConfig
from edgedafl.errors import UsageError
from edgedafl.gate.limits import Measured
from edgedafl.runs import GateReport, Verdict
from edgedafl.units import format_bytes, format_duration

__all__ = ["RELATIVE_LIMITS", "Baseline", "check_growth", "has_relative_limits"]

RELATIVE_LIMITS = ("max_size_growth", "max_slowdown", "max_fidelity_loss")
"""Names of the limits that need a baseline."""

_SCHEMA = 1


@dataclass(frozen=True)
class Baseline:
    """Values of an accepted model.

    Attributes:
        origin: Where they come from, for messages.
        measured: The values.
    """

    origin: str
    measured: Measured

    def to_dict(self) -> dict[str, Any]:
        """A JSON form, which `from_dict` reads."""
        return {"schema": _SCHEMA, "measured": asdict(self.measured)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], origin: str) -> Baseline:
        """Inverse of `to_dict`.

        Raises:
            UsageError: If it is not a baseline, or of a later version.
        """
        known = {field.name for field in fields(Measured)}
        try:
            if data["schema"] != _SCHEMA:
                raise UsageError(
                    f"{origin} is a baseline of schema {data['schema']}; this version reads {_SCHEMA}.",
                    "Write it again with --update-baseline.",
                )
            values = {name: value for name, value in dict(data["measured"]).items() if name in known}
            return cls(origin, Measured(**values))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{origin} is not a baseline.", "Write one with --update-baseline.") from error


def has_relative_limits(limits: GateConfig) -> bool:
    """Whether a baseline is needed to judge them.

    Examples:
        >>> has_relative_limits(GateConfig(max_size="1MB")), has_relative_limits(GateConfig(max_size_growth="5%"))
        (False, True)
    """
    return any(getattr(limits, name) is not None for name in RELATIVE_LIMITS)


def check_growth(limits: GateConfig, measured: Measured, baseline: Baseline, *, subject: str) -> GateReport:
    """Hold a model against an accepted one.

    What cannot be compared fails: a gate that cannot look must not say that all is well.

    Args:
        limits: The limits; absent ones are not checked.
        measured: Values of the model.
        baseline: The accepted one's.
        subject: What is judged, for the report.

    Examples:
        >>> before, limits = Baseline("main", Measured(size=1_000_000)), GateConfig(max_size_growth="5%")
        >>> check_growth(limits, Measured(size=1_040_000), before, subject="runs/mine").passed
        True
        >>> check_growth(limits, Measured(size=1_060_000), before, subject="runs/mine").passed
        False
    """
    before, verdicts = baseline.measured, []
    if limits.max_size_growth is not None:
        verdicts.append(_growth(limits.max_size_growth, measured, before))
    if limits.max_slowdown is not None:
        verdicts.append(_slowdown(limits.max_slowdown, measured, before))
    if limits.max_fidelity_loss is not None:
        verdicts.append(_loss(limits.max_fidelity_loss, measured, before))
    return GateReport(subject, tuple(verdicts))


def _growth(limit: float, now: Measured, before: Measured) -> Verdict:
    name, title = "max_size_growth", "growth of the file"
    if not now.size or not before.size:
        return _unknown(name, title, limit, "the size of one of the two is not known")
    share = now.size / before.size - 1
    value = f"{100 * share:+.2f} % ({format_bytes(before.size)} to {format_bytes(now.size)})"
    return _judged(name, title, share, limit, value)


def _slowdown(limit: float, now: Measured, before: Measured) -> Verdict:
    """A slowdown counts once the lower end of its interval exceeds the limit."""
    name, title = "max_slowdown", "slowdown"
    if now.latency is None or before.latency is None:
        return _unknown(name, title, limit, "the latency of one of the two was not measured")
    if now.latency_place != before.latency_place:
        places = " and ".join(place or "an unknown place" for place in (before.latency_place, now.latency_place))
        return _unknown(name, title, limit, f"measured on different machines ({places})")
    share = now.latency / before.latency - 1
    low, high = (now.latency_low or now.latency), (before.latency_high or before.latency)
    least = low / high - 1
    value = f"{100 * share:+.1f} %, at least {100 * least:+.1f} %"
    value += f" ({format_duration(before.latency)} to {format_duration(now.latency)})"
    return _judged(name, title, least, limit, value)


def _loss(limit: float, now: Measured, before: Measured) -> Verdict:
    name, title = "max_fidelity_loss", "loss of fidelity"
    if now.fidelity is None or before.fidelity is None:
        return _unknown(name, title, limit, "the fidelity of one of the two is not known")
    if now.fidelity_kind != before.fidelity_kind:
        kinds = f"{before.fidelity_kind or 'unknown'} and {now.fidelity_kind or 'unknown'}"
        return _unknown(name, title, limit, f"known in different ways ({kinds})")
    loss = before.fidelity - now.fidelity
    value = f"{100 * loss:.2f} points ({100 * before.fidelity:.2f} to {100 * now.fidelity:.2f} %)"
    return _judged(name, title, loss, limit, value, "points")


def _judged(name: str, title: str, found: float, limit: float, value: str, unit: str = "%") -> Verdict:
    passed = found <= limit + 1e-12
    excess = "" if passed else f"{100 * (found - limit):.2f} {unit}"
    return Verdict(name, title, passed, value, f"{100 * limit:.4g} {unit}", excess, _flag(name))


def _unknown(name: str, title: str, limit: float, reason: str) -> Verdict:
    return Verdict(name, title, False, f"cannot be judged: {reason}", f"{100 * limit:.4g} %", "unknown", _flag(name))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}, or accept the new model with --update-baseline"
