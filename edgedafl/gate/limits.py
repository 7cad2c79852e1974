"""Limits against values: one verdict each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedafl.config import GateConfig
from edgedafl.errors import UsageError
from edgedafl.runs import GateReport, Verdict
from edgedafl.units import format_bytes, format_count, format_duration

__all__ = ["Measured", "check_limits"]


@dataclass(frozen=True)
class Measured:
    """Values to hold against limits; None where there is none.

    Attributes:
        size: Bytes of the artifact.
        parameters: Weights.
        macs: Multiply-accumulates per image.
        ram: Bytes of working memory.
        agreement: Synthetic agreement in [0, 1].
        accuracy: Accuracy on labelled data in [0, 1].
        accuracy_drop: Teacher's accuracy minus the artifact's.
        fidelity: Share of real inputs with the teacher's class, predicted or measured, in [0, 1].
        fidelity_kind: How that is known.
        latency: Median seconds, measured.
        latency_low: Lower end of the median's interval, in seconds.
        latency_high: Upper end.
        latency_place: Device, processor and runtime that it was measured on.
        latency_is_estimate: Whether the only latency known is an estimate.
    """

    size: int | None = None
    parameters: int | None = None
    macs: int | None = None
    ram: int | None = None
    agreement: float | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    fidelity: float | None = None
    fidelity_kind: str = ""
    latency: float | None = None
    latency_low: float | None = None
    latency_high: float | None = None
    latency_place: str = ""
    latency_is_estimate: bool = False


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _points(value: float) -> str:
    return f"{100 * value:.2f} points"


_KINDS: dict[str, tuple[str, str, Any, Any]] = {
    # limit: (title, value's name, format, format of the excess)
    "max_size": ("file size", "size", format_bytes, format_bytes),
    "max_parameters": ("parameters", "parameters", format_count, format_count),
    "max_macs": ("MACs", "macs", format_count, format_count),
    "max_ram": ("working memory", "ram", format_bytes, format_bytes),
    "max_flash": ("flash", "size", format_bytes, format_bytes),
    "min_fidelity": ("fidelity", "fidelity", _percent, _points),
    "min_agreement": ("synthetic agreement", "agreement", _percent, _points),
    "min_accuracy": ("accuracy", "accuracy", _percent, _points),
    "max_accuracy_drop": ("accuracy drop", "accuracy_drop", _points, _points),
    "max_latency": ("latency (median)", "latency", format_duration, format_duration),
}


def check_limits(limits: GateConfig, measured: Measured, *, subject: str, source: Path | None = None) -> GateReport:
    """Hold values against limits.

    A limit without a value fails: a gate that cannot look must not say that all is well.

    Args:
        limits: The limits; absent ones are not checked.
        measured: The values.
        subject: What is judged, for the report.
        source: The file that the limits came from; None for flags.

    Raises:
        UsageError: If there is no limit at all.

    Examples:
        >>> limits = GateConfig(max_size="1MB", min_fidelity="95%")
        >>> report = check_limits(limits, Measured(size=900_000, fidelity=0.93), subject="runs/mine")
        >>> [(verdict.name, verdict.passed) for verdict in report.verdicts]
        [('max_size', True), ('min_fidelity', False)]
    """
    if not limits.model_dump(exclude_none=True, exclude={"baseline"}):
        raise UsageError(
            "There is no limit to check.",
            'Give one, e.g. --max-size 1MB, or write [gate] max_size = "1MB" into edgedafl.toml.',
        )
    verdicts = []
    for name, (title, key, show, show_excess) in _KINDS.items():
        limit = getattr(limits, name)
        if limit is None:
            continue
        value = getattr(measured, key)
        edit = _place(source, name)
        if value is None:
            verdicts.append(Verdict(name, title, False, _absent(key, measured), show(limit), "unknown", edit))
            continue
        excess = limit - value if name.startswith("min") else value - limit
        passed = excess <= 0
        text = "" if passed else show_excess(excess)
        verdicts.append(Verdict(name, title, passed, show(value), show(limit), text, edit))
    return GateReport(subject, tuple(verdicts))


def _absent(key: str, measured: Measured) -> str:
    if key == "latency" and measured.latency_is_estimate:
        return "estimated only, not measured"
    if key in ("accuracy", "accuracy_drop"):
        return "not known (give labelled data with --eval)"
    return "not known (gate a run directory for it)"


def _place(source: Path | None, name: str) -> str:
    if source is None:
        return f"the flag --{name.replace('_', '-')}"
    for number, line in enumerate(source.read_text("utf-8").splitlines(), 1):
        if re.match(rf"\s*{name}\s*=", line):
            return f"{source}:{number}"
    return f"the flag --{name.replace('_', '-')}"
