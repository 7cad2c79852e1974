"""Integer students from generated calibration images."""

from edgedafl.quantize.calibration import CalibrationSet
from edgedafl.quantize.ptq import METHODS, Quantized, quantize_model

__all__ = ["METHODS", "CalibrationSet", "Quantized", "quantize_model"]
