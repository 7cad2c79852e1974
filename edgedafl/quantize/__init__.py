"""Integer students from generated calibration images."""

from edgedafl.quantize.calibration import CalibrationSet
from edgedafl.quantize.choose import Quantized, integer_model, quantize_model
from edgedafl.quantize.control import Controlled, KeptLayer, keep_worst_layers, layer_sensitivities
from edgedafl.quantize.fidelity import Fidelity, ModelComparer, answers_on_probes, within_drop
from edgedafl.quantize.ptq import METHODS, quantize_graph, weighted_nodes, with_remainder
from edgedafl.quantize.qat import train_quantized
from edgedafl.quantize.ranges import Activation, observe_activations
from edgedafl.quantize.rounding import ROUNDING_IMAGES
from edgedafl.quantize.unsigned import with_unsigned_activations

__all__ = [
    "METHODS",
    "ROUNDING_IMAGES",
    "Activation",
    "CalibrationSet",
    "Controlled",
    "Fidelity",
    "KeptLayer",
    "ModelComparer",
    "Quantized",
    "answers_on_probes",
    "integer_model",
    "keep_worst_layers",
    "layer_sensitivities",
    "observe_activations",
    "quantize_graph",
    "quantize_model",
    "train_quantized",
    "weighted_nodes",
    "with_remainder",
    "with_unsigned_activations",
    "within_drop",
]
