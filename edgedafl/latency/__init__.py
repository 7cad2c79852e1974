"""Latency: measured by protocol, or estimated and marked as such."""

from edgedafl.latency.estimate import estimate_latency
from edgedafl.latency.estimator import DeviceFit, DeviceModel, Measured, fit_model
from edgedafl.latency.figure import read_measurement
from edgedafl.latency.protocol import BenchOptions
from edgedafl.latency.statistics import early_stopping_bound, ratio_of_medians, summarize

__all__ = [
    "BenchOptions",
    "DeviceFit",
    "DeviceModel",
    "Measured",
    "early_stopping_bound",
    "estimate_latency",
    "fit_model",
    "ratio_of_medians",
    "read_measurement",
    "summarize",
]
