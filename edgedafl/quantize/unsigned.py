"""The same integers counted from 0: what processors of x86 multiply is unsigned on one side."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgedafl.graph.edit import copy_of, drop_unused

__all__ = ["with_unsigned_activations"]

_SHIFT = 128
_WEIGHTED = ("Conv", "Gemm", "MatMul")


def with_unsigned_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose activations are uint8 where they were int8, and which computes to the same.

    ONNX Runtime fuses layers of int8 activations on ARM, and those of uint8 ones on x86. Weights stay int8.

    Args:
        model: Quantized graph with Q/DQ pairs.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ... pair (float[1] x) => (float[1] y) <float s = {0.5}, int8 z = {-3}>
        ... { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }'''
        >>> changed = with_unsigned_activations(onnx.parser.parse_model(text))
        >>> [int(onnx.numpy_helper.to_array(t)) for t in changed.graph.initializer if t.data_type == 2]
        [125]
    """
    changed = copy_of(model)
    graph = changed.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    moved: dict[str, str] = {}

    def unsigned(name: str) -> str:
        """A stored int8 constant's uint8 form, made once."""
        if name not in moved:
            values = numpy_helper.to_array(stored[name]).astype(np.int16) + _SHIFT
            moved[name] = f"{name}_unsigned"
            graph.initializer.append(numpy_helper.from_array(values.astype(np.uint8), moved[name]))
        return moved[name]

    def signed(name: str) -> bool:
        return name in stored and stored[name].data_type == TensorProto.INT8

    weights = {node.input[1] for node in graph.node if node.op_type in _WEIGHTED}
    rounded: set[str] = set()
    for node in graph.node:
        if len(node.input) < 3 or not signed(node.input[2]):
            continue
        if node.op_type == "QuantizeLinear":
            rounded.add(node.output[0])
        elif node.op_type != "DequantizeLinear":
            continue
        elif signed(node.input[0]) and node.output[0] not in weights:
            node.input[0] = unsigned(node.input[0])
        elif node.input[0] not in rounded:
            continue
        node.input[2] = unsigned(node.input[2])
    drop_unused(changed)
    return changed
