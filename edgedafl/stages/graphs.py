"""A student's graph as a target takes it."""

from __future__ import annotations

import onnx

from edgedafl.graph.edit import clamp_ir
from edgedafl.targets import Target

__all__ = ["for_target"]


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


def _lowest_ir(opset: int) -> int:
    """The IR version an operator set asks for at least."""
    return 8 if opset <= 18 else 9 if opset <= 20 else 10
