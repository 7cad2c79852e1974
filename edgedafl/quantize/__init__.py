"""Integer students from generated calibration images."""

from edgedafl.quantize.calibration import CalibrationSet
from edgedafl.quantize.choose import Quantized, quantize_model
from edgedafl.quantize.control import Controlled, KeptLayer, keep_worst_layers, layer_sensitivities
from edgedafl.quantize.fidelity import Fidelity, Judge, within_drop
from edgedafl.quantize.ptq import METHODS, quantize_graph, weighted_nodes
from edgedafl.quantize.qat import train_quantized

__all__ = [
    "METHODS",
    "CalibrationSet",
    "Controlled",
    "Fidelity",
    "Judge",
    "KeptLayer",
    "Quantized",
    "keep_worst_layers",
    "layer_sensitivities",
    "quantize_graph",
    "quantize_model",
    "train_quantized",
    "weighted_nodes",
    "within_drop",
]
