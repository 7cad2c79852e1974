"""Latency: measured by protocol, or estimated and marked as such."""

from edgedafl.latency.estimate import estimate_latency
from edgedafl.latency.figure import EMULATED, Estimate, LatencyFigure, Measurement, read_measurement
from edgedafl.latency.protocol import BenchOptions
from edgedafl.latency.statistics import LatencySummary, early_stopping_bound, ratio_of_medians, summarize

__all__ = [
    "EMULATED",
    "BenchOptions",
    "Estimate",
    "LatencyFigure",
    "LatencySummary",
    "Measurement",
    "early_stopping_bound",
    "estimate_latency",
    "ratio_of_medians",
    "read_measurement",
    "summarize",
]
