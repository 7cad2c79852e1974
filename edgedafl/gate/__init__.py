"""Budgets that CI holds a model to."""

from edgedafl.gate.limits import Measured, check_limits
from edgedafl.gate.measured import (
    BASELINE,
    accept,
    entry_of,
    gate_measured,
    gate_model,
    gate_run,
    look_at,
    measured_of,
    measured_of_record,
)
from edgedafl.gate.relative import RELATIVE_LIMITS, Baseline, check_growth, has_relative_limits
from edgedafl.gate.render import FORMATS, render

__all__ = [
    "BASELINE",
    "FORMATS",
    "RELATIVE_LIMITS",
    "Baseline",
    "Measured",
    "accept",
    "check_growth",
    "check_limits",
    "entry_of",
    "gate_measured",
    "gate_model",
    "gate_run",
    "has_relative_limits",
    "look_at",
    "measured_of",
    "measured_of_record",
    "render",
]
