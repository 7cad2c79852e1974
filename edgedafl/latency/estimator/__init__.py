"""Latency of networks on devices that are not attached."""

from edgedafl.latency.estimator.calibrated import DeviceFit, DeviceModel, Measured, fit_model
from edgedafl.latency.estimator.fit import Observation, Prior, fit_device, fit_prior
from edgedafl.latency.estimator.processors import ProcessorSpec, find_processor
from edgedafl.latency.estimator.published import Prediction, Published, band_of
from edgedafl.latency.estimator.rows import Row, architectures, mark_releases, packaged_rows, read_rows, rows_of
from edgedafl.latency.estimator.work import KINDS, CostedLayer, seconds_at_peak, work_of

__all__ = [
    "KINDS",
    "CostedLayer",
    "DeviceFit",
    "DeviceModel",
    "Measured",
    "Observation",
    "Prediction",
    "Prior",
    "ProcessorSpec",
    "Published",
    "Row",
    "architectures",
    "band_of",
    "find_processor",
    "fit_device",
    "fit_model",
    "fit_prior",
    "mark_releases",
    "packaged_rows",
    "read_rows",
    "rows_of",
    "seconds_at_peak",
    "work_of",
]
