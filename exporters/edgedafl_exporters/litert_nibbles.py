"""Weights of four bits in .tflite files, two in a byte.

LiteRT's quantizer spreads every channel over 8 bits. Where our rounding has left a channel on seven integers to either
side, the eight-bit ones are a multiple of those, which is found again here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["has_nibbles", "to_nibbles"]

_LARGEST = 7
_WHOLE = 127
_FEWEST_COLUMNS = 8
"""Fewer integers of a channel may look like a multiple by chance."""


def has_nibbles(model: onnx.ModelProto) -> bool:
    """Whether an integer graph has a layer whose weights are integers of four bits.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> has_nibbles(onnx.parser.parse_model(text))
        False
    """
    weights = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1)
    return any(int(np.abs(numpy_helper.to_array(tensor).astype(np.int16)).max()) <= _LARGEST for tensor in weights)


def to_nibbles(tree: Any, schema: Any) -> int:
    """Store the weights that are integers of four bits as such, in place; returns how many layers these are.

    Args:
        tree: The model, as LiteRT's schema reads it, weights in its buffers.
        schema: LiteRT's schema.
    """
    kinds = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in tree.operatorCodes]
    changed = 0
    for graph in tree.subgraphs:
        for node in graph.operators:
            weight = graph.tensors[node.inputs[1]] if codes[node.opcodeIndex] in kinds else None
            if weight is not None and weight.type == schema.TensorType.INT8:
                bias = graph.tensors[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] >= 0 else None
                changed += _store(tree, schema, weight, bias)
    return changed


def _store(tree: Any, schema: Any, weight: Any, bias: Any) -> bool:
    """One layer; returns whether it was changed."""
    content = np.asarray(tree.buffers[weight.buffer].data, np.uint8).view(np.int8).astype(int)
    rows = content.reshape(int(weight.shape[0]), -1)
    scale = np.asarray(weight.quantization.scale, np.float64)
    largest = _multiples(rows) if len(scale) == len(rows) and rows.shape[1] >= _FEWEST_COLUMNS else None
    if largest is None:
        return False
    wider = _WHOLE / largest
    weight.quantization.scale = (scale * wider).astype(np.float32)
    weight.type = schema.TensorType.INT4
    nibbles = np.round(rows / wider[:, None]).astype(np.int8).reshape(-1).view(np.uint8) & 0xF
    nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    tree.buffers[weight.buffer].data = nibbles[0::2] | (nibbles[1::2] << 4)
    if bias is not None:  # its integers are of the weights' scale times the input's
        held = tree.buffers[bias.buffer]
        integers = np.frombuffer(np.asarray(held.data, np.uint8).tobytes(), np.int32)
        held.data = np.frombuffer(np.round(integers / wider).astype(np.int32).tobytes(), np.uint8)
        bias.quantization.scale = (np.asarray(bias.quantization.scale, np.float64) * wider).astype(np.float32)
    return True


def _multiples(rows: np.ndarray) -> np.ndarray | None:
    """By channel the largest of its four-bit integers, of which its eight-bit ones are a multiple; None if not all are.

    Args:
        rows: Integers (channels, columns), of which the largest is 127.
    """
    found = np.zeros(len(rows), int)
    for largest in range(_LARGEST, 0, -1):  # the least that does comes last
        few = np.round(rows * largest / _WHOLE)
        found[(np.round(few * _WHOLE / largest) == rows).all(1)] = largest
    return found if found.all() else None
