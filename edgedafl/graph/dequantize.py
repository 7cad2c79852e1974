"""A quantized graph as floats again, with the weights that rounding has left.

Runtimes with quantizers of their own want a float model. Its weights may as well be those that were already
rounded: on the same grid another quantizer finds the same integers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgedafl.graph.constants import computed_constants
from edgedafl.graph.edit import copy_of

__all__ = ["without_integers"]

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_SIX = 6.05  # 6 and a rounding of its scale


def without_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without QuantizeLinear and DequantizeLinear: rounded weights as floats, activations not rounded.

    Args:
        model: A graph with QDQ pairs, its weights int8 and its biases int32.

    Returns:
        A float graph with the same inputs and outputs.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1] x) => (float[1] y) <float s = {0.5}, int8 z = {0}>
        ...     { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Relu(d) }'''
        >>> [node.op_type for node in without_integers(onnx.parser.parse_model(text)).graph.node]
        ['Relu']
    """
    result = copy_of(model)
    constants = computed_constants(result)
    graph = result.graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    kept: list[onnx.NodeProto] = []
    alias: dict[str, str] = {}
    for node in graph.node:
        names = [alias.get(name, name) for name in node.input]
        if all(name in constants for name in node.output if name):
            continue
        if node.op_type == _DEQUANTIZE:
            alias[node.output[0]] = names[0]
            continue
        if node.op_type == _QUANTIZE:
            kind = _cut_by(names, stored | constants)
            alias[node.output[0]] = f"{node.output[0]}_cut" if kind else names[0]
            if kind:
                kept.extend(_cut(kind, names[0], f"{node.output[0]}_cut"))
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(names)
        kept.append(copy)
    _keep_output_names(graph, kept, alias)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    del graph.initializer[:]
    for name, value in (stored | constants).items():
        if name in read:
            graph.initializer.append(numpy_helper.from_array(value, name))
    return result


def _cut_by(names: list[str], stored: dict[str, np.ndarray]) -> str:
    """The activation that integers beginning at zero stand for: it was left out, because they cut off as well.

    Integers that end before 6 cut off what a Relu6 would; those that end later may have had a Relu.
    """
    zero = stored.get(names[2]) if len(names) > 2 else None
    scale = stored.get(names[1])
    if zero is None or scale is None or zero.size != 1 or zero.dtype.kind not in "iu":
        return ""
    limits = np.iinfo(zero.dtype)
    if int(zero.reshape(-1)[0]) != limits.min:
        return ""
    return "Relu6" if float(scale.reshape(-1)[0]) * (limits.max - limits.min) <= _SIX else "Relu"


def _cut(kind: str, source: str, name: str) -> list[onnx.NodeProto]:
    if kind == "Relu":
        return [onnx.helper.make_node("Relu", [source], [name], name=name)]
    bounds = [
        onnx.helper.make_node("Constant", [], [f"{name}_{end}"], name=f"{name}_{end}", value_float=value)
        for end, value in (("low", 0.0), ("high", 6.0))
    ]
    return [*bounds, onnx.helper.make_node("Clip", [source, f"{name}_low", f"{name}_high"], [name], name=name)]


def _keep_output_names(graph: onnx.GraphProto, kept: list[onnx.NodeProto], alias: dict[str, str]) -> None:
    """Where a graph's output was made by DequantizeLinear, what stood before takes its name."""
    for output in graph.output:
        source = alias.get(output.name)
        if source is not None:
            kept.append(onnx.helper.make_node("Identity", [source], [output.name], name=f"{output.name}_as_float"))
