"""Weights of few integers, many of them in one number of 64 bits; runtimes take them apart when they load the file.

A weight that is one of r integers is a digit of base r, and a signed number of 64 bits holds as many digits as its
63 bits below the sign allow: 16 of the integers -7 to 7 (four bits each), 13 of -13 to 13 (4.9 bits), 10 of -38 to 38
(6.4 bits). Only operators of opset 13 take them apart, and on constants alone: ONNX Runtime does it once, before it
looks for integer layers, and runs the same kernels on the same integers of eight bits as ever. So the file is smaller,
and time and answers are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedafl.graph.edit import copy_of, replace_all

__all__ = ["ALL_BITS", "LOADING_BYTES", "WEIGHT_BITS", "count_packed", "has_few_integers", "largest_integer", "packed"]

ALL_BITS = 8.0
LOADING_BYTES = 22
"""That a packed weight takes for a moment while ONNX Runtime loads it: 4.7 million took 101 MB."""
_WORD, _ROOM = 64, 2**63
_MOST_DIGITS, _LEAST_DIGITS = 22, 9
_LARGEST = 127
# Bytes of nodes and shapes: what a layer, and what all layers of one base cost beside their digits.
_LAYER_COSTS, _BASE_COSTS = 90, 350


def _largest(digits: int) -> int:
    """Half of the largest odd base of which so many digits fit."""
    if digits < _LEAST_DIGITS:
        return _LARGEST
    base = int(_ROOM ** (1 / digits)) + 1
    while base % 2 == 0 or base**digits > _ROOM:
        base -= 1
    return base // 2


WEIGHT_BITS = (
    ALL_BITS,
    *(
        _WORD / digits
        for digits in range(_LEAST_DIGITS, _MOST_DIGITS + 1)
        if digits == _MOST_DIGITS or _largest(digits + 1) < _largest(digits)
    ),
)
"""Bits that a weight can take in a file, most first."""


def largest_integer(bits: float) -> int:
    """The integers -largest to largest are what a weight of so many bits can be.

    Args:
        bits: At most; 2.9 to 8.

    Raises:
        ValueError: If it is not in that range.

    Examples:
        >>> [largest_integer(bits) for bits in (8, 7.2, 6, 5, 4)]
        [127, 63, 25, 13, 7]
    """
    if not WEIGHT_BITS[-1] <= bits <= ALL_BITS:
        raise ValueError(f"{bits} bits are not between {WEIGHT_BITS[-1]:.1f} and 8")
    return _LARGEST if bits == ALL_BITS else _largest(math.ceil(_WORD / bits - 1e-6))


def packed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights of few integers take fewer bits; one that computes to the same.

    Args:
        model: Quantized graph with Q/DQ pairs. Weights that need all eight bits stay as they are.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y)
        ...     <float s = {0.5}, int8 z = {0}> { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }'''
        >>> [node.op_type for node in packed(onnx.parser.parse_model(text)).graph.node]
        ['QuantizeLinear', 'DequantizeLinear']
    """
    small = copy_of(model)
    _Packing(small.graph).run()
    return small


def has_few_integers(model: onnx.ModelProto) -> bool:
    """Whether weights of a quantized graph take fewer than eight bits in a file, or do already.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> has_few_integers(onnx.parser.parse_model(text))
        False
    """
    return count_packed(packed(model).graph) > 0


def count_packed(graph: onnx.GraphProto) -> int:
    """Weights that a graph holds as digits.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
        >>> count_packed(packed(onnx.parser.parse_model(text)).graph)
        0
    """
    sides = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.data_type == TensorProto.INT64}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    read = {name for node in graph.node for name in node.input}
    count = 0
    for node in graph.node:
        shapes = [sides.get(name, ()) for name in node.input]
        if node.op_type == "Div" and len(shapes[0]) == len(shapes[1]) == 2:
            count += math.prod(shapes[0]) * math.prod(shapes[1])
        elif node.op_type == "Split" and len(shapes) == 2 and shapes[1] and node.output[-1] not in read:
            count -= int(numpy_helper.to_array(stored[node.input[1]])[-1])  # what fills the last number up
    return count


class _Packing:
    """One graph, changed in place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        taken = {*self._stored, *(name for node in graph.node for name in [*node.input, *node.output])}
        self._names = (name for name in map("p{}".format, itertools.count()) if name not in taken)
        self._made: list[onnx.NodeProto] = []

    def run(self) -> None:
        renamed: dict[str, str] = {}
        for digits, weights in self._by_digits().items():
            saved = sum(value.size for value in weights.values()) * (1 - 8 / digits)
            if saved > _BASE_COSTS + _LAYER_COSTS * len(weights):
                renamed |= self._join(digits, weights)
        for node in self._graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        kept = [tensor for tensor in self._graph.initializer if tensor.name not in renamed]
        replace_all(self._graph.initializer, kept)
        replace_all(self._graph.node, [*self._made, *self._graph.node])

    def _by_digits(self) -> dict[int, dict[str, np.ndarray]]:
        """Weights by how many fit into a number, those that gain from it."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for name in self._weights():
            value = numpy_helper.to_array(self._stored[name])
            digits = _digits_for(int(np.abs(value.astype(np.int16)).max(initial=0)))
            if digits and value.size * (1 - 8 / digits) > _LAYER_COSTS:
                found.setdefault(digits, {})[name] = value
        return found

    def _weights(self) -> Iterator[str]:
        """Stored int8 that become floats."""
        results = {output.name for output in self._graph.output}
        for name in {node.input[0]: None for node in self._graph.node if node.op_type == "DequantizeLinear"}:
            tensor = self._stored.get(name)
            if tensor is not None and tensor.data_type == TensorProto.INT8 and tensor.dims and name not in results:
                yield name

    def _join(self, digits: int, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
        """All weights of one base as one vector, and the nodes that take it apart; returns new names by old ones."""
        largest = _largest(digits)
        base = 2 * largest + 1
        flat = np.concatenate([value.reshape(-1) for value in weights.values()]).astype(np.int64) + largest
        rest = -len(flat) % digits
        powers = base ** np.arange(digits, dtype=np.int64)
        words = np.pad(flat, (0, rest)).reshape(-1, digits) @ powers
        quotients = self._node("Div", self._store(words.reshape(-1, 1)), self._store(powers.reshape(1, -1)))
        values = self._store(np.arange(-largest, largest + 1, dtype=np.int8))
        places = self._node("Mod", quotients, self._store(np.array(base, np.int64)))
        whole = self._node("Reshape", self._node("Gather", values, places), self._store(np.array([-1], np.int64)))
        sizes = [value.size for value in weights.values()] + ([rest] if rest else [])
        parts = self._split(whole, sizes)
        return {
            name: self._node("Reshape", part, self._store(np.array([-1, *value.shape[1:]], np.int64)))
            for (name, value), part in zip(weights.items(), parts, strict=False)
        }

    def _split(self, whole: str, sizes: list[int]) -> list[str]:
        if len(sizes) == 1:
            return [whole]
        names = [next(self._names) for _ in sizes]
        self._made.append(helper.make_node("Split", [whole, self._store(np.array(sizes, np.int64))], names))
        return names

    def _node(self, kind: str, *inputs: str) -> str:
        name = next(self._names)
        self._made.append(helper.make_node(kind, inputs, [name]))
        return name

    def _store(self, value: np.ndarray) -> str:
        name = next(self._names)
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def _digits_for(largest: int) -> int:
    """How many integers up to this one fit into a number; 0 where bytes hold as many."""
    fitting = [digits for digits in range(_LEAST_DIGITS, _MOST_DIGITS + 1) if _largest(digits) >= largest]
    return fitting[-1] if fitting else 0
