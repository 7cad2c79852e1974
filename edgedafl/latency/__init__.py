"""Latency: measured by protocol, or estimated and marked as such."""

from edgedafl.latency.estimate import estimate_latency
from edgedafl.latency.figure import Estimate, LatencyFigure, Measurement, read_measurement
from edgedafl.latency.statistics import LatencySummary, ratio_of_medians, summarize

__all__ = [
    "Estimate",
    "LatencyFigure",
    "LatencySummary",
    "Measurement",
    "estimate_latency",
    "ratio_of_medians",
    "read_measurement",
    "summarize",
]
