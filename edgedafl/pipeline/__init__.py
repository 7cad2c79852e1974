"""Commands as functions: `compress` is all stages in order, the others are one of them."""

from edgedafl.gate import gate_model, gate_run, measured_of
from edgedafl.pipeline.compress import Compression, compress, distill
from edgedafl.pipeline.existing import calibrate, estimated_latency, export, profile, quantize, run_target, verify
from edgedafl.pipeline.inspect import Inspection, inspect
from edgedafl.stages import keep_calibration, prepare

__all__ = [
    "Compression",
    "Inspection",
    "calibrate",
    "compress",
    "distill",
    "estimated_latency",
    "export",
    "gate_model",
    "gate_run",
    "inspect",
    "keep_calibration",
    "measured_of",
    "prepare",
    "profile",
    "quantize",
    "run_target",
    "verify",
]
