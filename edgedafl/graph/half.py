"""Float32 graphs to float16, integers and Q/DQ pairs left as they are."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedafl.graph.edit import copy_of

__all__ = ["to_half"]

# These inputs must stay float32 by the operator's specification.
_FLOAT32_INPUTS = {"Resize": {1, 2}, "Upsample": {1}}
_HALF_MAX = 65504.0


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in float16 and keeps float32 inputs and outputs.

    QuantizeLinear and DequantizeLinear take float16 scales from opset 19 on, so a quantized graph
    needs that opset. Shapes and types of intermediate values are dropped and inferred anew.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1] x) => (float[1] y) <float[1] w = {2}> { y = Mul(x, w) }'''
        >>> [node.op_type for node in to_half(onnx.parser.parse_model(text)).graph.node]
        ['Cast', 'Mul', 'Cast']
    """
    half = copy_of(model)
    graph = half.graph
    del graph.value_info[:]
    kept = {node.input[i] for node in graph.node for i in _FLOAT32_INPUTS.get(node.op_type, ()) if i < len(node.input)}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(_half_tensor(tensor))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                if not set(node.output) & kept:
                    attribute.t.CopyFrom(_half_tensor(attribute.t))
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    _cast_interface(graph)
    return onnx.shape_inference.infer_shapes(half)


def _half_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    values = np.clip(numpy_helper.to_array(tensor), -_HALF_MAX, _HALF_MAX)
    small = values.astype(np.float16)
    # A scale that underflows to zero would divide by zero.
    smallest = np.copysign(np.float16(6e-8), values).astype(np.float16)
    small = np.where((small == 0) & (values != 0), smallest, small)
    return numpy_helper.from_array(small, tensor.name)


def _cast_interface(graph: onnx.GraphProto) -> None:
    """Casts right behind the float32 inputs and right before the float32 outputs."""
    given = {tensor.name for tensor in graph.initializer}
    first, last = [], []
    for value in graph.input:
        if value.name in given or value.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        inner = f"{value.name}_half"
        _rename_inputs(graph, value.name, inner)
        first.append(helper.make_node("Cast", [value.name], [inner], to=TensorProto.FLOAT16))
    for value in graph.output:
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        inner = f"{value.name}_half"
        for node in graph.node:
            for i, name in enumerate(node.output):
                if name == value.name:
                    node.output[i] = inner
        _rename_inputs(graph, value.name, inner)
        last.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.FLOAT))
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *body, *last])


def _rename_inputs(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
