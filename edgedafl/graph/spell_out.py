"""Operators that are newer than opset 18, or cannot be converted to it, in operators that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedafl.graph.edit import copy_of

__all__ = ["spell_out"]

Shapes = Mapping[str, tuple[int, ...]]


class _Writer:
    """Nodes and constants that stand for one node.

    Args:
        graph: Gets the constants.
        node: The node; its first output's name begins all new names.
    """

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        self._graph, self._name = graph, node.output[0]
        self.node = node
        self.nodes: list[onnx.NodeProto] = []

    def attribute(self, name: str, default: float) -> float:
        """A number of the node's."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        return default if found is None else float(helper.get_attribute_value(found))

    def constant(self, value: object, kind: type = np.float32) -> str:
        """A new constant's name."""
        name = f"{self._name}_constant{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def make(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A new node's output, by default under a new name."""
        name = output or f"{self._name}_{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], f"{name}_node", **attributes))
        return name


def spell_out(model: onnx.ModelProto, shapes: Callable[[], Shapes]) -> onnx.ModelProto:
    """A copy in which such nodes are replaced; those of a form that is not known stay.

    Args:
        model: The graph.
        shapes: Gives the shape of every value for one image; called where a form needs it.

    Examples:
        >>> text = '''<ir_version: 10, opset_import: ["": 20]> g (float[1,4] x) => (float[1,4] y) { y = Gelu(x) }'''
        >>> [node.op_type for node in spell_out(onnx.parser.parse_model(text), dict).graph.node]
        ['Div', 'Erf', 'Add', 'Mul', 'Mul']
    """
    changed = copy_of(model)
    graph = changed.graph
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        writer, write = _Writer(graph, node), _FORMS.get(node.op_type)
        if write is not None and write(writer, graph, shapes):
            nodes += writer.nodes
        else:
            nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return changed


def _gelu(w: _Writer, graph: onnx.GraphProto, shapes: Callable[[], Shapes]) -> bool:
    """As x / 2 * (1 + erf(x / sqrt 2))."""
    if any(a.name == "approximate" and a.s != b"none" for a in w.node.attribute):
        return False
    x = w.node.input[0]
    share = w.make("Add", w.make("Erf", w.make("Div", x, w.constant(2**0.5))), w.constant(1.0))
    w.make("Mul", w.make("Mul", x, share), w.constant(0.5), output=w.node.output[0])
    return True


def _group_norm(w: _Writer, graph: onnx.GraphProto, shapes: Callable[[], Shapes]) -> bool:
    """Instance normalization of the groups; scale and bias are per group in opset 18, per channel since 21."""
    x, scale, bias = w.node.input[:3]
    stored = {t.name: t for t in graph.initializer}
    if scale not in stored or bias not in stored or x not in shapes():
        return False
    _, channels, *rest = shapes()[x]
    groups = int(w.attribute("num_groups", 1))
    factors = [numpy_helper.to_array(stored[name]).reshape(-1) for name in (scale, bias)]
    factors = [f if len(f) == channels else np.repeat(f, channels // groups) for f in factors]
    sides = (channels, *[1] * len(rest))
    ones, zeros = w.constant(np.ones(groups)), w.constant(np.zeros(groups))
    flat = w.make("Reshape", x, w.constant([0, groups, -1], np.int64))
    even = w.make("InstanceNormalization", flat, ones, zeros, epsilon=w.attribute("epsilon", 1e-5))
    back = w.make("Reshape", even, w.constant([0, channels, *rest], np.int64))
    scaled = w.make("Mul", back, w.constant(factors[0].reshape(sides)))
    w.make("Add", scaled, w.constant(factors[1].reshape(sides)), output=w.node.output[0])
    return True


def _rms_norm(w: _Writer, graph: onnx.GraphProto, shapes: Callable[[], Shapes]) -> bool:
    """As x / sqrt(mean x^2 + epsilon) * scale, over the last axis."""
    x, scale = w.node.input[:2]
    if int(w.attribute("axis", -1)) != -1:
        return False
    size = w.make("ReduceMean", w.make("Mul", x, x), w.constant([-1], np.int64), keepdims=1)
    root = w.make("Sqrt", w.make("Add", size, w.constant(w.attribute("epsilon", 1e-5))))
    w.make("Mul", w.make("Div", x, root), scale, output=w.node.output[0])
    return True


def _attention(w: _Writer, graph: onnx.GraphProto, shapes: Callable[[], Shapes]) -> bool:
    """softmax(Q K^T scale) V, of heads side by side (N, heads, length, width) and without a mask."""
    node = w.node
    q, k, v = node.input[:3]
    plain = not any(node.input[3:]) and len([name for name in node.output if name]) == 1
    plain &= not w.attribute("is_causal", 0) and not w.attribute("softcap", 0)
    known = shapes() if plain else {}
    if q not in known or len(known[q]) != 4 or known[q][1] != known[k][1]:
        return False
    scale = w.attribute("scale", known[q][-1] ** -0.5)
    scores = w.make("MatMul", w.make("Mul", q, w.constant(scale)), w.make("Transpose", k, perm=[0, 1, 3, 2]))
    w.make("MatMul", w.make("Softmax", scores, axis=-1), v, output=node.output[0])
    return True


_FORMS = {
    "Gelu": _gelu,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm,
    "Attention": _attention,
}
