"""Budgets that CI holds a model to."""

from edgedafl.gate.limits import GateReport, Measured, Verdict, check_limits
from edgedafl.gate.render import FORMATS, render

__all__ = ["FORMATS", "GateReport", "Measured", "Verdict", "check_limits", "render"]
