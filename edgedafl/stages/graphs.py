"""A student's graph as a target takes it."""

from __future__ import annotations

import onnx

from edgedafl.graph.edit import attribute, clamp_ir, model_bytes
from edgedafl.graph.packed import packed
from edgedafl.targets import Target

__all__ = ["file_size", "for_target"]

_LITERT = (7, 410)
"""Bytes of a .tflite beyond ours, per channel and per layer: scales and biases in 32 bits, tables of tensors."""


def for_target(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """The student at the target's operator set and IR version.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> text = '<ir_version: 10, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> found = for_target(onnx.parser.parse_model(text), find_target("rpi4"))
        >>> found.ir_version, found.opset_import[0].version
        (8, 18)
    """
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    converted = model
    if opset != target.opset:
        converted = onnx.version_converter.convert_version(model, target.opset)
    converted = clamp_ir(converted, target.ir_version)
    converted.ir_version = max(converted.ir_version, _lowest_ir(target.opset))
    return converted


def file_size(model: onnx.ModelProto, target: Target) -> int:
    """Bytes of the file that holds a graph on a target; of LiteRT's an estimate.

    Args:
        model: Quantized graph at batch 1.
        target: Where it goes.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> file_size(onnx.parser.parse_model(text), find_target("rpi4")) < 100
        True
    """
    size = len(model_bytes(packed(model)))
    if target.runtime != "litert":
        return size
    made = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [made.get(node.input[1]) for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    pairs = [n for n in weights if n is not None and n.input[0] in stored and len(stored[n.input[0]].dims) > 1]
    channels = sum(int(stored[node.input[0]].dims[attribute(node, "axis", 1)]) for node in pairs)
    per_channel, per_layer = _LITERT
    return size + per_channel * channels + per_layer * len(pairs)


def _lowest_ir(opset: int) -> int:
    """The IR version an operator set asks for at least."""
    return 8 if opset <= 18 else 9 if opset <= 20 else 10
