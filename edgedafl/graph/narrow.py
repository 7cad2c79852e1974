"""Scales and biases of an integer graph in half their bytes; runtimes widen them when they load it.

Beside the integers of a narrow network lie four numbers per channel: scale and zero point of the weights,
bias and its scale. In a MobileNet they are a fifth of the file. Here scales are stored as bfloat16 and
biases as float16, and a bias's scale is the product that it is by definition. All of it is constant: ONNX
Runtime computes it once, before it looks for integer layers. Zero points of weights stay: it rewrites them in
place, and fails where they were computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedafl.graph.edit import copy_of

__all__ = ["narrow", "next_bfloat16"]

_LARGEST_HALF = 65_504
_LEAST_CHANNELS = 16
"""Below this the nodes take more than is saved."""
_SAME = 1e-6


def next_bfloat16(values: np.ndarray) -> np.ndarray:
    """The nearest numbers of bfloat16 that are not smaller, as float32.

    Args:
        values: float32, positive and finite.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    found: np.ndarray = (-(-bits.astype(np.int64) // 65_536) * 65_536).astype(np.uint32).view(np.float32)
    return found


def narrow(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes to the same, but for a bias's last bits.

    Args:
        model: Quantized graph in float32. Scales that are not numbers of bfloat16 stay as they are.
    """
    small = copy_of(model)
    _Narrowing(small.graph).run()
    return small


class _Narrowing:
    """One graph, changed in place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        taken = {*self._stored, *(name for node in graph.node for name in [*node.input, *node.output])}
        self._names = (name for name in map("n{}".format, itertools.count()) if name not in taken)
        self._made: list[onnx.NodeProto] = []
        self._scales: dict[str, str] = {}

    def run(self) -> None:
        written = {name: node for node in self._graph.node for name in node.output}
        for node in self._graph.node:
            if node.op_type not in ("Conv", "Gemm") or not all(name in written for name in node.input[:2]):
                continue
            given, weight = written[node.input[0]], written[node.input[1]]
            if not (_dequantizes(given) and _dequantizes(weight) and weight.input[0] in self._stored):
                continue
            scale = self._stored.get(weight.input[1])
            if scale is None or len(scale.dims) != 1 or scale.dims[0] < _LEAST_CHANNELS:
                continue
            bias = written.get(node.input[2]) if len(node.input) > 2 else None
            if bias is not None and _dequantizes(bias):
                self._narrow_bias(bias, given.input[1], weight.input[1])
            self._narrow_weight(weight)
        self._finish()

    def _narrow_bias(self, node: onnx.NodeProto, given: str, weight: str) -> None:
        value = self._stored.get(node.input[0])
        if value is None or value.data_type != TensorProto.INT32:
            return
        numbers = numpy_helper.to_array(value)
        if np.abs(numbers).max(initial=0) <= _LARGEST_HALF:
            half = numpy_helper.from_array(numbers.astype(np.float16))
            node.input[0] = self._widened(half, TensorProto.INT32)
        node.input[:] = [node.input[0], self._product(given, weight)]  # of int32 the zero point is 0

    def _narrow_weight(self, node: onnx.NodeProto) -> None:
        scale = self._stored[node.input[1]]
        exact = numpy_helper.to_array(scale)
        # A step of bfloat16 that went through the quantizer has lost its last bit.
        bits = (exact.view(np.uint32).astype(np.int64) + 32_768) // 65_536
        near = (bits * 65_536).astype(np.uint32).view(np.float32)
        if np.all(np.abs(near - exact) <= _SAME * exact):
            tensor = TensorProto(data_type=TensorProto.BFLOAT16, dims=scale.dims, raw_data=bits.astype("<u2").tobytes())
            self._scales[node.input[1]] = self._widened(tensor, TensorProto.FLOAT)

    def _product(self, one: str, other: str) -> str:
        name = next(self._names)
        self._made.append(helper.make_node("Mul", [one, other], [name]))
        return name

    def _widened(self, tensor: TensorProto, kind: int) -> str:
        tensor.name, name = next(self._names), next(self._names)
        self._graph.initializer.append(tensor)
        self._made.append(helper.make_node("Cast", [tensor.name], [name], to=kind))
        return name

    def _finish(self) -> None:
        """The new nodes come first, those that read others last; what nobody reads goes."""
        casts = [node for node in self._made if node.op_type != "Mul"]
        products = [node for node in self._made if node.op_type == "Mul"]
        nodes = [*casts, *products, *self._graph.node]
        for node in nodes:
            node.input[:] = [self._scales.get(name, name) for name in node.input]
        read = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in read]
        _replace(self._graph.node, nodes)
        _replace(self._graph.initializer, tensors)


def _dequantizes(node: onnx.NodeProto) -> bool:
    return node.op_type == "DequantizeLinear"


def _replace(held: object, messages: Iterable[onnx.NodeProto | TensorProto]) -> None:
    kept = [type(message).FromString(message.SerializeToString()) for message in messages]
    del held[:]  # type: ignore[attr-defined]
    held.extend(kept)  # type: ignore[attr-defined]
