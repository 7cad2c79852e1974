"""Attributes of nodes, and small rewrites of a graph: batch size, IR version, metadata, pooling form.

All rewrites of graphs in this project give a copy and leave what they were given as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import numpy_helper

__all__ = [
    "attribute",
    "average_as_pooling",
    "clamp_ir",
    "copy_of",
    "drop_unused",
    "fix_batch",
    "model_bytes",
    "readers_of",
    "replace_all",
    "strip_metadata",
    "with_all_outputs",
]


def model_bytes(model: onnx.ModelProto) -> bytes:
    """Serialized form, the same for the same graph.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> model = onnx.parser.parse_model(text)
        >>> model_bytes(model) == model_bytes(copy_of(model))
        True
    """
    blob: bytes = model.SerializeToString(deterministic=True)
    return blob


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model once more, to be changed.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> model = onnx.parser.parse_model(text)
        >>> copy = copy_of(model)
        >>> copy.graph.node[0].op_type = "Neg"
        >>> model.graph.node[0].op_type
        'Relu'
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def with_all_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that answers every value its nodes make, after its own outputs.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { a = Relu(x) y = Neg(a) }'
        >>> [output.name for output in with_all_outputs(onnx.parser.parse_model(text)).graph.output]
        ['y', 'a']
    """
    wide = copy_of(model)
    known = {output.name for output in wide.graph.output} | {""}
    made = (name for node in wide.graph.node for name in node.output if name not in known)
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    return wide


def fix_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy whose symbolic first dimensions are `batch`: static shapes are faster on devices.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }'
        >>> fixed = fix_batch(onnx.parser.parse_model(text), 1)
        >>> fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        1
    """
    fixed = copy_of(model)
    for value in [*fixed.graph.input, *fixed.graph.output]:
        dim = value.type.tensor_type.shape.dim[0]
        if not dim.HasField("dim_value"):
            dim.dim_value = batch
    del fixed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(fixed)


def clamp_ir(model: onnx.ModelProto, ir_version: int) -> onnx.ModelProto:
    """A copy of a lower IR version: exporters raise it without using what is new in it.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 10, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> model = onnx.parser.parse_model(text)
        >>> clamp_ir(model, 8).ir_version, clamp_ir(model, 12).ir_version
        (8, 10)
    """
    lowered = copy_of(model)
    lowered.ir_version = min(model.ir_version, ir_version)
    return lowered


def strip_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without stack traces, source paths and other notes that exporters leave.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> model = onnx.parser.parse_model(text)
        >>> model.graph.node[0].doc_string = "written in train.py, line 7"
        >>> strip_metadata(model).graph.node[0].doc_string
        ''
    """
    stripped = copy_of(model)
    del stripped.metadata_props[:]
    stripped.doc_string = ""
    graph = stripped.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    return stripped


def average_as_pooling(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which a mean over the image plane is a GlobalAveragePool.

    Exporters write adaptive pooling as ReduceMean, which integer runtimes do not fuse.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,4,8,8] x) => (float[1,4,1,1] y)
        ... <int64[2] axes = {2, 3}> { y = ReduceMean(x, axes) }'''
        >>> average_as_pooling(onnx.parser.parse_model(text)).graph.node[0].op_type
        'GlobalAveragePool'
    """
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    changed = copy_of(model)
    for node in changed.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = sorted(int(a) % 4 for a in constants[node.input[1]].reshape(-1))
        if axes == [2, 3] and attribute(node, "keepdims", 1) == 1:
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]
    drop_unused(changed)
    return changed


def drop_unused(model: onnx.ModelProto) -> None:
    """Take constants that nobody reads out of a graph, in place: the last step of a rewrite, on its copy.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y)
        ...     <float[1] half = {0.5}, float[1] third = {0.3}> { y = Mul(x, half) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> drop_unused(model)
        >>> [tensor.name for tensor in model.graph.initializer]
        ['half']
    """
    used = {name for node in model.graph.node for name in node.input}
    used |= {output.name for output in model.graph.output}
    for tensor in list(model.graph.initializer):
        if tensor.name not in used:
            model.graph.initializer.remove(tensor)
    for node in list(model.graph.node):
        if node.op_type == "Constant" and node.output[0] not in used:
            model.graph.node.remove(node)


def replace_all(held: Any, messages: Iterable[Any]) -> None:
    """Put nodes or tensors in the place of those that a graph holds, in place; some may be the same ones.

    Args:
        held: A graph's `node` or `initializer`.
        messages: What it will hold.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y)
        ...     { y = Neg(x)  z = Relu(x) }'''
        >>> graph = onnx.parser.parse_model(text).graph
        >>> replace_all(graph.node, reversed(graph.node))
        >>> [node.op_type for node in graph.node]
        ['Relu', 'Neg']
    """
    kept = [type(message).FromString(message.SerializeToString()) for message in messages]
    del held[:]
    held.extend(kept)


def readers_of(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Nodes that read a value, in their order, by its name; twice where one reads it twice.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { a = Neg(x) y = Add(a, x) }'
        >>> [node.op_type for node in readers_of(onnx.parser.parse_model(text))["x"]]
        ['Neg', 'Add']
    """
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, or a default where the node does not state it.

    Examples:
        >>> import onnx
        >>> node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=4)
        >>> attribute(node, "group", 1), attribute(node, "auto_pad", b"NOTSET")
        (4, b'NOTSET')
    """
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
