"""Post-training quantization for one target, with ONNX Runtime's quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from edgedafl.graph.edit import clamp_ir, strip_metadata
from edgedafl.graph.half import to_half
from edgedafl.quantize.ranges import least_error_ranges
from edgedafl.targets import QuantizationScheme

__all__ = ["METHODS", "quantize_graph", "weighted_nodes"]

_CALIBRATORS = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
METHODS = (*_CALIBRATORS, "mse")
"""Names of the calibration methods."""

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_WEIGHTED = ["Conv", "Gemm", "MatMul"]
# What the CPU runtimes fuse beside the weighted layers. With the activations among them a layer's
# integers span what is left after the activation, and no pair stands between the two.
_BETWEEN = ["Relu", "Clip", "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat"]
_LEVELS = 256


def weighted_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that carry weights, in graph order."""
    return [node.name for node in model.graph.node if node.op_type in _WEIGHTED]


def quantize_graph(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    images: np.ndarray,
    method: str,
    *,
    exclude: Sequence[str] = (),
    trainable: bool = False,
) -> onnx.ModelProto:
    """Put Q/DQ pairs where the scheme wants them.

    Args:
        model: Float32 graph at batch 1.
        scheme: The target's integer scheme.
        images: float32 (N,C,H,W) in model space, to collect activation ranges from.
        method: One of METHODS.
        exclude: Weighted nodes that stay float.
        trainable: Leave weights and biases float, weights behind a Q/DQ pair, all in float32.
    """
    options: dict[str, Any] = {
        "ActivationSymmetric": scheme.symmetric_activations,
        "WeightSymmetric": True,
        "QuantizeBias": scheme.quantize_bias and not trainable,
        "AddQDQPairToWeight": trainable,
    }
    operators = [*_WEIGHTED, *_BETWEEN] if scheme.outputs else list(_WEIGHTED)
    if not scheme.outputs:
        # TensorRT adds residuals in the float type of the remainder; quantized sums cost it reformats.
        options["DedicatedQDQPair"] = True
        options["OpTypesToExcludeOutputQuantization"] = [*_WEIGHTED, *_BETWEEN]
    if method not in _CALIBRATORS:
        ranges = least_error_ranges(model, images, levels=_LEVELS, symmetric=scheme.symmetric_activations)
        options["TensorQuantOverrides"] = {
            name: [{"rmin": np.float32(found.low), "rmax": np.float32(found.high)}] for name, found in ranges.items()
        }
        images = images[:1]
    quantized = _run_quantizer(model, scheme, images, method, operators, options, list(exclude))
    if scheme.remainder == "float16" and not trainable:
        quantized = to_half(quantized)
    strip_metadata(quantized)
    clamp_ir(quantized, model.ir_version)
    return quantized


def _run_quantizer(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    images: np.ndarray,
    method: str,
    operators: list[str],
    options: dict[str, Any],
    exclude: list[str],
) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            result,
            _Reader(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            nodes_to_exclude=exclude,
            per_channel=scheme.per_channel,
            activation_type=_TYPES[scheme.activations],
            weight_type=_TYPES[scheme.weights],
            calibrate_method=_CALIBRATORS.get(method, CalibrationMethod.MinMax),
            extra_options=options,
        )
        return onnx.load(result)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds one image at a time: calibration at the batch the device runs."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._rows: Iterator[dict[str, np.ndarray]] = iter([{name: x[None]} for x in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's calibrators print, and its quantizer advises a step that does not apply."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
