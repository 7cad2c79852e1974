"""What a graph knows before it is given an image."""

from __future__ import annotations

import numpy as np
import onnx

from edgedafl.graph.edit import copy_of, replace_all
from edgedafl.graph.runtime import open_session

__all__ = ["computed_constants", "with_constants_stored"]


def computed_constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Values that nodes make out of constants alone, by name; stored constants are not among them.

    Args:
        model: Any graph that ONNX Runtime loads.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ... g (float[1] x) => (float[1] y) <float[1] half = {0.5}> { twice = Add(half, half)  y = Mul(x, twice) }'''
        >>> computed_constants(onnx.parser.parse_model(text))
        {'twice': array([1.], dtype=float32)}
    """
    known = {t.name for t in model.graph.initializer} | {""}
    nodes = []
    for node in model.graph.node:
        if all(name in known for name in node.input):
            nodes.append(node)
            known |= set(node.output)
    names = [name for node in nodes for name in node.output if name]
    if not names:
        return {}
    part = copy_of(model)
    del part.graph.node[:], part.graph.input[:], part.graph.output[:], part.graph.value_info[:]
    part.graph.node.extend(nodes)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = open_session(part, optimize=False).run(names, {})
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def with_constants_stored(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or a copy in which the tensors of Constant nodes are initializers.

    Some exporters (PaddlePaddle's) write all weights as nodes; what counts weights or looks for the statistics of
    BatchNorms then finds them in one place.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y)
        ...     { half = Constant<value = float[1] {0.5}>()  y = Mul(x, half) }'''
        >>> stored = with_constants_stored(onnx.parser.parse_model(text))
        >>> [tensor.name for tensor in stored.graph.initializer], [node.op_type for node in stored.graph.node]
        (['half'], ['Mul'])
    """
    if not any(_is_tensor(node) for node in model.graph.node):
        return model
    changed = copy_of(model)
    graph = changed.graph
    nodes = list(graph.node)
    for node in nodes:
        if _is_tensor(node):
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
    replace_all(graph.node, [node for node in nodes if not _is_tensor(node)])
    changed.ir_version = max(changed.ir_version, 4)  # before, initializers had to be inputs as well
    return changed


def _is_tensor(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value"
