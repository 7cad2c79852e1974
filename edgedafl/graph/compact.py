"""The same graph in fewer bytes: short names, and one copy of equal constants."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator

import onnx

from edgedafl.graph.edit import copy_of, replace_all

__all__ = ["compact"]

# ONNX Runtime rewrites weights and the zero points of their channels in place, layer by layer: shared ones
# stop it.
_OWN = (onnx.TensorProto.INT8,)
_DEFAULTS = {"dilations": 1, "group": 1, "pads": 0, "strides": 1}
_PAIRS = ("QuantizeLinear", "DequantizeLinear")


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose values and constants have short names and whose equal constants are one.

    A quantized network of 0.5 million weights loses a tenth of its file: the quantizer names every value
    after its layer, and gives every layer zero points of its own. Names of inputs, outputs and nodes stay,
    by which users and profilers know them. Graphs with subgraphs stay as they are.

    Args:
        model: Any graph.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ... g (float[1] x) => (float[1] y) { long_name = Relu(x) y = Neg(long_name) }'''
        >>> [node.output[0] for node in compact(onnx.parser.parse_model(text)).graph.node]
        ['a', 'y']
    """
    small = copy_of(model)
    graph = small.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return small
    same = _shared_constants(graph)
    kept = {value.name for value in [*graph.input, *graph.output]} | {""}
    written = [name for node in graph.node for name in node.output]
    fresh = (name for name in _names() if name not in kept)
    short = {name: next(fresh) for name in [*(t.name for t in graph.initializer), *written] if name not in kept}

    def new(name: str) -> str:
        one = same.get(name, name)
        return short.get(one, one)

    for tensor in graph.initializer:
        tensor.name = new(tensor.name)
    for node in graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        node.ClearField("doc_string")  # an empty one takes bytes as well
        if node.op_type in _PAIRS:
            node.name = node.output[0]  # runtimes make names of their own out of it
    _drop_defaults(graph)
    del graph.value_info[:]
    return small


def _shared_constants(graph: onnx.GraphProto) -> dict[str, str]:
    """Remove constants that are equal to an earlier one, in place; returns which name stands for which."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    needed = {output.name for output in graph.output}
    kept = []
    for tensor in graph.initializer:
        own = tensor.name
        tensor.name = ""
        key = tensor.SerializeToString(deterministic=True)
        tensor.name = own
        shared = tensor.data_type not in _OWN or not tensor.dims
        if key in first and own not in needed and shared:
            same[own] = first[key]
            continue
        first.setdefault(key, own)
        kept.append(tensor)
    replace_all(graph.initializer, kept)
    return same


def _drop_defaults(graph: onnx.GraphProto) -> None:
    """Leave out what convolutions take anyhow."""
    for node in graph.node:
        if node.op_type == "Conv":
            for attribute in [a for a in node.attribute if a.name in _DEFAULTS]:
                if (set(attribute.ints) or {attribute.i}) == {_DEFAULTS[attribute.name]}:
                    node.attribute.remove(attribute)


def _names() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)
