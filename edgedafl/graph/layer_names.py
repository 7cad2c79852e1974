"""Which layer of the student a node of its graph came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx

from edgedafl.runs import LayerTime

__all__ = ["layer_names", "name_layers"]


def layer_names(model: onnx.ModelProto) -> dict[str, str]:
    """Names of nodes and of their outputs to layer names, e.g. `node_Conv_139` to `blocks.0.conv1`.

    A weighted node is named after its weights; one without weights after the last weighted node
    above it and its own operator, e.g. `blocks.0.conv2 + Add`.

    Examples:
        >>> head = onnx.helper.make_node("Gemm", ["image", "head.weight"], ["node_7"], name="node_7")
        >>> end = onnx.helper.make_node("Relu", ["node_7"], ["node_8"], name="node_8")
        >>> weight = onnx.TensorProto(name="head.weight", data_type=1, dims=[1, 1], float_data=[2.0])
        >>> layer_names(onnx.helper.make_model(onnx.helper.make_graph([head, end], "g", [], [], [weight])))
        {'node_7': 'head', 'node_8': 'head + Relu'}
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    names: dict[str, str] = {}
    above: dict[str, str] = {}
    for node in model.graph.node:
        own = next((name for name in node.input if name in weights and name.endswith(".weight")), "")
        layer = own.removesuffix(".weight") or next((above[name] for name in node.input if name in above), "")
        names[node.name] = layer if own or not layer else f"{layer} + {node.op_type}"
        for output in node.output:
            above[output] = layer
            names[output] = names[node.name]
    return {node: layer for node, layer in names.items() if layer}


def name_layers(rows: Iterable[LayerTime], names: dict[str, str]) -> tuple[LayerTime, ...]:
    """A profiler's rows with their layers and shares, slowest first.

    Runtimes fuse nodes and give them names of their own; what cannot be traced back keeps the
    runtime's name.

    Examples:
        >>> rows = [LayerTime("node_7", "Conv", 3.0, 0.0), LayerTime("node_8", "Relu", 1.0, 0.0)]
        >>> [(row.layer, row.share) for row in name_layers(rows, {"node_7": "head"})]
        [('head', 0.75), ('node_8', 0.25)]
    """
    listed = sorted(rows, key=lambda row: -row.ns)
    total = sum(row.ns for row in listed) or 1
    return tuple(replace(row, layer=_trace(row.node, names), share=row.ns / total) for row in listed)


def _trace(node: str, names: dict[str, str]) -> str:
    """By exact name, else by the longest known name within it (TensorRT joins names with ` + `)."""
    plain = node.split("_token_", maxsplit=1)[0]
    if plain in names:
        return names[plain]
    inside = [name for name in names if name in plain]
    return names[max(inside, key=len)] if inside else node
