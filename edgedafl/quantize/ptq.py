"""Post-training quantization for one target, with ONNX Runtime's quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
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

from edgedafl.graph.edit import clamp_ir, fix_batch, strip_metadata
from edgedafl.graph.half import to_half
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize.calibration import CalibrationSet
from edgedafl.targets import QuantizationScheme
from edgedafl.tasks import agreement, predictions

__all__ = ["METHODS", "Quantized", "quantize_model"]

METHODS = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_WEIGHTED = ["Conv", "Gemm", "MatMul"]
# What the CPU runtimes fuse beside the weighted layers.
_BETWEEN = ["Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat"]


@dataclass(frozen=True)
class Quantized:
    """An int8 model and how it was chosen.

    Attributes:
        model: The graph, batch 1.
        method: Calibration method.
        agreement: Top-1 agreement with the teacher on the probes, in [0, 1].
        float_agreement: The same of the float model.
        tried: Agreement of every method tried.
        calibration: Digest of the calibration set.
    """

    model: onnx.ModelProto
    method: str
    agreement: float
    float_agreement: float
    tried: dict[str, float]
    calibration: str


def quantize_model(model: onnx.ModelProto, scheme: QuantizationScheme, calibration: CalibrationSet) -> Quantized:
    """Quantize by every calibration method and keep the one that agrees best on the probes.

    Args:
        model: The float32 student with a free batch.
        scheme: The target's integer scheme.
        calibration: Generated images.
    """
    images, classes = calibration.probe_images(), calibration.probe_classes
    fixed = fix_batch(model, 1)
    reference = _scores(fixed, images)
    collected = calibration.images()
    results: dict[str, tuple[float, float, onnx.ModelProto]] = {}
    for method in METHODS:
        candidate = _quantize(fixed, scheme, method, collected)
        scores = _scores(candidate, images)
        same = agreement(predictions(scores, calibration.task), classes)
        results[method] = (same, -float(np.abs(scores - reference).mean()), candidate)
    best = max(results, key=lambda name: results[name][:2])
    share, _, chosen = results[best]
    return Quantized(
        model=chosen,
        method=best,
        agreement=share,
        float_agreement=agreement(predictions(reference, calibration.task), classes),
        tried={name: value[0] for name, value in results.items()},
        calibration=calibration.digest,
    )


def _scores(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return run_batched(open_session(model), images, batch=1)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds one image at a time: calibration at the batch the device runs."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._rows: Iterator[dict[str, np.ndarray]] = iter([{name: x[None]} for x in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


def _quantize(model: onnx.ModelProto, scheme: QuantizationScheme, method: str, images: np.ndarray) -> onnx.ModelProto:
    options: dict[str, Any] = {
        "ActivationSymmetric": scheme.symmetric_activations,
        "WeightSymmetric": True,
        "QuantizeBias": scheme.quantize_bias,
    }
    # TensorRT adds residuals in the float type of the remainder; quantized sums cost it reformats.
    operators = list(_WEIGHTED)
    if scheme.outputs:
        operators = [*_WEIGHTED, *_BETWEEN]
    else:
        options["DedicatedQDQPair"] = True
        options["OpTypesToExcludeOutputQuantization"] = [*_WEIGHTED, *_BETWEEN, "Relu", "Clip"]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            result,
            _Reader(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            per_channel=scheme.per_channel,
            activation_type=_TYPES[scheme.activations],
            weight_type=_TYPES[scheme.weights],
            calibrate_method=METHODS[method],
            extra_options=options,
        )
        quantized = onnx.load(result)
    if scheme.remainder == "float16":
        quantized = to_half(quantized)
    strip_metadata(quantized)
    clamp_ir(quantized, model.ir_version)
    return quantized


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
