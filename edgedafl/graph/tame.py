"""Numbers in a file that no runtime, or no training, can do with, in ones that they can."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgedafl.graph.edit import copy_of

__all__ = ["floats_for", "tamed"]

_BELOW = 30.0
"""How far a class that is never answered stands below the others: a share of 1e-13."""
_NOTHING = -1e4
"""What is written in the place of scores that do not count; sixteen-bit floats hold it too."""


def tamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or a copy whose doubles are floats and whose constants are finite.

    ONNX Runtime has no convolution of doubles. A bias of minus infinity retires a class: scores that are far below
    all others do the same, and have a distance to what a student says.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (double[1] x) => (double[1] y) { y = Relu(x) }'
        >>> tamed(onnx.parser.parse_model(text)).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        True
    """
    doubles = any(t.data_type == TensorProto.DOUBLE for t in model.graph.initializer) or any(
        v.type.tensor_type.elem_type == TensorProto.DOUBLE for v in model.graph.input
    )
    endless = [place for place, tensor in enumerate(model.graph.initializer) if _is_endless_bias(tensor)]
    if not doubles and not endless:
        return model
    copy = floats_for(model, {TensorProto.DOUBLE}) if doubles else copy_of(model)
    for place in endless:
        tensor = copy.graph.initializer[place]
        values = numpy_helper.to_array(tensor).copy()
        finite = values[np.isfinite(values)]
        values[np.isneginf(values)] = finite.min() - _BELOW if finite.size else _NOTHING
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def floats_for(model: onnx.ModelProto, kinds: Set[int]) -> onnx.ModelProto:
    """A copy in which all values of some float types are float32.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float16[1] x) => (float16[1] y) { y = Relu(x) }'
        >>> model = floats_for(onnx.parser.parse_model(text), {onnx.TensorProto.FLOAT16})
        >>> model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        True
    """
    changed = copy_of(model)
    graph = changed.graph
    for tensor in graph.initializer:
        if tensor.data_type in kinds:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in kinds:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in kinds:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in kinds:
                wide = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(wide, attribute.t.name))
    del graph.value_info[:]
    return changed


def _is_endless_bias(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16) or len(tensor.dims) > 1:
        return False
    values = numpy_helper.to_array(tensor)
    return bool(np.isneginf(values).any() and (values.size == 1 or np.isfinite(values).any()))
