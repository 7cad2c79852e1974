"""The part of a graph that its scores need: exporters also write labels as text, losses and accuracies."""

from __future__ import annotations

from collections.abc import Set

import onnx
from onnx import TensorProto, helper

from edgedafl.graph.edit import copy_of
from edgedafl.graph.facts import graph_inputs

__all__ = ["drop_unneeded", "needed_part", "numeric_outputs", "outer_names", "read_by"]

_NAMED_SCORES = "ZipMap"  # of ai.onnx.ml: a row of scores as a map from the classes' names


def numeric_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """The tensors of numbers behind a graph's outputs, by the name of the output.

    Scores that are answered as maps from class to score are the tensor that the maps were made of; labels as
    text are left out.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y, string[1] z) { y = Relu(x) }'
        >>> numeric_outputs(onnx.parser.parse_model(text))
        {'y': 'y'}
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for output in model.graph.output:
        kind, maker = output.type.tensor_type.elem_type, makers.get(output.name)
        if maker is not None and maker.op_type == _NAMED_SCORES:
            found[output.name] = maker.input[0]
        elif (output.type.HasField("tensor_type") or not output.HasField("type")) and kind != TensorProto.STRING:
            found[output.name] = output.name
    return found


def needed_part(
    model: onnx.ModelProto, *, output: str | None = None, image: str | None = None
) -> tuple[onnx.ModelProto, str | None]:
    """Leave out what no output of numbers needs: nodes, weights and inputs.

    Args:
        model: Not changed.
        output: Whether only this one counts.
        image: The image input, where it was named: outputs that need another input as well do not count.

    Returns:
        The model itself where nothing is left out, else a smaller copy; and the name of `output` in it.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1] x, float[1] extra) => (float[1] y, float[1] z) { y = Relu(x)  z = Neg(extra) }'''
        >>> part, name = needed_part(onnx.parser.parse_model(text), output="y")
        >>> [value.name for value in part.graph.input], name
        (['x'], 'y')
    """
    found = numeric_outputs(model)
    wanted = {name: value for name, value in found.items() if output in (None, name)}
    fed = {value.name for value in graph_inputs(model)}
    if image is not None and output is None:
        others = fed - {image}
        wanted = {n: v for n, v in wanted.items() if not others & _needed(model, {v})} or wanted
    if not wanted:
        return model, output
    needed = _needed(model, set(wanted.values()))
    is_whole = [*wanted.values()] == [value.name for value in model.graph.output] and fed <= needed
    if is_whole:
        return model, output
    return _part(model, wanted), output if output is None else wanted[output]


def drop_unneeded(model: onnx.ModelProto, outputs: Set[str]) -> onnx.ModelProto:
    """A copy without the nodes, inputs and weights on which none of some values depends.

    Examples:
        >>> import onnx
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) z = Neg(x) }'
        >>> [node.op_type for node in drop_unneeded(onnx.parser.parse_model(text), {"y"}).graph.node]
        ['Relu']
    """
    rest = copy_of(model)
    graph, needed = rest.graph, _needed(model, outputs)
    for items in (graph.node, graph.input, graph.initializer):
        for place in reversed(range(len(items))):
            item = items[place]
            if not needed & set(item.output if isinstance(item, onnx.NodeProto) else [item.name]):
                del items[place]
    return rest


def _part(model: onnx.ModelProto, wanted: dict[str, str]) -> onnx.ModelProto:
    part = drop_unneeded(model, set(wanted.values()))
    graph = part.graph
    declared = {output.name: output for output in graph.output}
    outputs = [
        declared[value] if value == name else helper.make_tensor_value_info(value, TensorProto.FLOAT, None)
        for name, value in wanted.items()
    ]
    copies = [onnx.ValueInfoProto.FromString(output.SerializeToString()) for output in outputs]
    del graph.output[:]
    graph.output.extend(copies)
    domains = {node.domain or "ai.onnx" for node in graph.node}
    for opset in list(part.opset_import):
        if opset.domain and opset.domain != "ai.onnx" and opset.domain not in domains:
            part.opset_import.remove(opset)
    return part


def _needed(model: onnx.ModelProto, outputs: Set[str]) -> set[str]:
    """Values on which some depend, these among them."""
    needed = set(outputs)
    for node in reversed(model.graph.node):  # sorted when it was read
        if needed & set(node.output):
            needed.update(read_by(node))
    return needed - {""}


def read_by(node: onnx.NodeProto) -> set[str]:
    """Values that a node reads, those of the graphs in its attributes among them.

    Examples:
        >>> import onnx
        >>> sorted(read_by(onnx.helper.make_node("Add", ["a", "b"], ["c"])))
        ['a', 'b']
    """
    return {*node.input, *outer_names(node)}


def outer_names(node: onnx.NodeProto) -> list[str]:
    """Names that a node's subgraphs may read from the enclosing graph.

    Examples:
        >>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
        >>> outer_names(node)
        []
    """
    names: list[str] = []
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names += [*inner.input, *outer_names(inner)]
            names += [output.name for output in graph.output]
    return names
