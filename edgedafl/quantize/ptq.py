"""Post-training quantization for one target, with ONNX Runtime's quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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

from edgedafl.graph.compact import compact
from edgedafl.graph.edit import attribute, clamp_ir, strip_metadata
from edgedafl.graph.half import to_half
from edgedafl.graph.narrow import narrow
from edgedafl.quantize.ranges import Activation, ranges_of
from edgedafl.targets import QuantizationScheme

__all__ = ["METHODS", "integer_readers", "quantize_graph", "weighted_nodes", "with_remainder"]

METHODS = ("robust", "min-max", "mse")
"""Names of the calibration methods, see `ranges`; the cautious one first."""

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_WEIGHTED = ["Conv", "Gemm", "MatMul"]
# What the CPU runtimes fuse beside the weighted layers. With the activations among them a layer's
# integers span what is left after the activation, and no pair stands between the two.
_ACTIVATIONS = ["Relu", "Clip"]
_BETWEEN = [*_ACTIVATIONS, "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat"]
_LEVELS = 256
_WEIGHT_LEVELS = 127


def integer_readers(scheme: QuantizationScheme) -> frozenset[str]:
    """Types of the nodes that read integers in a scheme; activations read sums that are not rounded yet.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> "Conv" in integer_readers(find_target("rpi4").scheme)
        True
    """
    return frozenset(_WEIGHTED + [kind for kind in _BETWEEN if kind not in _ACTIVATIONS and scheme.outputs])


def weighted_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that carry weights, in graph order.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,4] x) => (float[n,2] y)
        ...     <float[4,2] w> { [head] a = MatMul(x, w)  [end] y = Relu(a) }'''
        >>> weighted_nodes(onnx.parser.parse_model(text))
        ['head']
    """
    return [node.name for node in model.graph.node if node.op_type in _WEIGHTED]


def quantize_graph(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    activations: Mapping[str, Activation],
    method: str,
    *,
    exclude: Sequence[str] = (),
    trainable: bool = False,
    steps: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """Put Q/DQ pairs where the scheme wants them; the scores themselves stay float.

    Args:
        model: Float32 graph at batch 1.
        scheme: The target's integer scheme.
        activations: Of this graph on calibration images, see `ranges.observe_activations`.
        method: One of METHODS.
        exclude: Weighted nodes that stay float.
        trainable: Leave weights and biases float, weights behind a Q/DQ pair, all in float32.
        steps: What one integer of a weight stands for, by weight and output channel, where they are on their grid
            already (see `rounding`).

    Examples:
        >>> import onnx
        >>> from edgedafl.quantize import observe_activations
        >>> from edgedafl.targets import find_target
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1,2,2] x) => (float[1,2,2,2] y)
        ...     <float[2,1,1,1] w = {2, 3}, float[2] b = {0, 0}> { [head] y = Conv(x, w, b) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> seen = observe_activations(model, np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 1, 2, 2))
        >>> [node.op_type for node in quantize_graph(model, find_target("rpi4").scheme, seen, "min-max").graph.node]
        ['Mul', 'DequantizeLinear', 'DequantizeLinear', 'QuantizeLinear', 'DequantizeLinear', 'Conv']
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
    ranges = ranges_of(dict(activations), method, levels=_LEVELS, symmetric=scheme.symmetric_activations)
    options["TensorQuantOverrides"] = {
        name: [{"rmin": np.float32(found.low), "rmax": np.float32(found.high)}] for name, found in ranges.items()
    }
    axes = _channel_axes(model)
    for name, own in (steps or {}).items() if scheme.per_channel else ():
        ends = [(-_WEIGHT_LEVELS * step, _WEIGHT_LEVELS * step) for step in own.astype(np.float32)]
        options["TensorQuantOverrides"][name] = [
            {"axis": axes[name], "rmin": np.float32(low), "rmax": np.float32(high)} for low, high in ends
        ]
    quantized = _run_quantizer(model, scheme, operators, options, list(exclude))
    _leave_scores_float(quantized)
    quantized = clamp_ir(strip_metadata(quantized), model.ir_version)
    if trainable:
        return quantized
    narrows = scheme.quantize_bias and scheme.remainder == "float32"
    return with_remainder(compact(narrow(quantized) if narrows else quantized), scheme)


def with_remainder(model: onnx.ModelProto, scheme: QuantizationScheme) -> onnx.ModelProto:
    """A quantized graph in float32 with what is not quantized in the scheme's float type.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> scheme = find_target("rpi4").scheme
        >>> [node.op_type for node in with_remainder(onnx.parser.parse_model(text), scheme).graph.node]
        ['Relu']
    """
    return compact(to_half(model)) if scheme.remainder == "float16" else model


def _channel_axes(model: onnx.ModelProto) -> dict[str, int]:
    """Axis of the output channels, by weight."""
    weighted = [node for node in model.graph.node if node.op_type in _WEIGHTED]
    return {
        node.input[1]: int(node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)))
        for node in weighted
    }


def _run_quantizer(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    operators: list[str],
    options: dict[str, Any],
    exclude: list[str],
) -> onnx.ModelProto:
    given = model.graph.input[0]
    sides = [side.dim_value for side in given.type.tensor_type.shape.dim]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            result,
            _Reader(given.name, np.zeros((1, *sides[1:]), np.float32)),  # all ranges are given
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            nodes_to_exclude=exclude,
            per_channel=scheme.per_channel,
            activation_type=_TYPES[scheme.activations],
            weight_type=_TYPES[scheme.weights],
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=options,
        )
        return onnx.load(result)


def _leave_scores_float(model: onnx.ModelProto) -> None:
    """Take the Q/DQ pair off the output, in place: on synthetic images scores span less than on real ones."""
    graph = model.graph
    written = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        last = written[output.name]
        pair = written.get(last.input[0]) if last.op_type == "DequantizeLinear" else None
        if pair is None or pair.op_type != "QuantizeLinear" or pair.input[0] not in written:
            continue
        source = written[pair.input[0]]
        if any(pair.input[0] in node.input for node in graph.node if node is not pair):
            continue
        source.output[:] = [output.name if name == pair.input[0] else name for name in source.output]
        graph.node.remove(last)
        graph.node.remove(pair)


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
