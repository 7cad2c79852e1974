"""Evaluation of nodes whose inputs are all host values (shapes and constants)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

__all__ = ["constant_value", "evaluate_on_host"]


_LOWEST = {"QuantizeLinear": 19, "DequantizeLinear": 19}
"""Opsets that the reference implementation begins with; what opset 13 says is among what 19 says."""


def constant_value(node: onnx.NodeProto) -> np.ndarray:
    """The array of a Constant node, half precision widened to float32.

    Examples:
        >>> constant_value(onnx.helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]))
        array([1., 2.], dtype=float32)
    """
    attribute = node.attribute[0]
    value: Any = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _widened(onnx.numpy_helper.to_array(value))
    return np.asarray(value, dtype=np.float32 if "float" in attribute.name else None)


def evaluate_on_host(node: onnx.NodeProto, inputs: list[Any], opset: int) -> list[np.ndarray]:
    """Run one node with ONNX's own reference implementation.

    Examples:
        >>> node = onnx.helper.make_node("Concat", ["a", "b"], ["c"], axis=0)
        >>> evaluate_on_host(node, [np.array([1, 2]), np.array([3])], 18)
        [array([1, 2, 3])]
    """
    feeds = {name: v for name, v in zip(node.input, inputs, strict=False) if v is not None}
    undefined = onnx.TensorProto.UNDEFINED
    graph = onnx.helper.make_graph(
        [node],
        "host",
        [onnx.helper.make_tensor_value_info(name, undefined, None) for name in feeds],
        [onnx.helper.make_tensor_value_info(name, undefined, None) for name in node.output if name],
    )
    opsets = [onnx.helper.make_opsetid(node.domain, max(opset, _LOWEST.get(node.op_type, 0)))]
    results = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(None, feeds)
    return [_widened(np.asarray(value)) for value in results]


def _widened(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype == np.float16 else value
