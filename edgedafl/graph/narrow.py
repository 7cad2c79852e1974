"""Scales and biases of an integer graph in half their bytes; runtimes widen them when they load it.

Beside the integers of a narrow network lie four numbers per channel: scale and zero point of the weights,
bias and its scale. In a MobileNet they are a fifth of the file. Here the scales of all layers are one vector
of bfloat16, their biases one of float16, and a bias's scale is the product that it is by definition. All of
it is constant: ONNX Runtime computes it once, before it looks for integer layers. Zero points of a convolution's
weights go, since they are 0; those of matrix products stay, which ONNX Runtime would else leave in floats.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedafl.graph.edit import copy_of, replace_all

__all__ = ["narrow", "next_bfloat16"]

_LARGEST_HALF = 65_504
_LARGEST_BIAS = 2047 * 2**20
"""The largest number of eleven bits below 2^31: the next one overflows int32."""
_LEAST_NUMBERS = 64
"""Below this the nodes take more than is saved."""
_SAME = 1e-6


def next_bfloat16(values: np.ndarray) -> np.ndarray:
    """The nearest numbers of bfloat16 that are not smaller, as float32.

    Args:
        values: float32, positive and finite.

    Examples:
        >>> next_bfloat16(np.array([1.0, 1.001], np.float32))
        array([1.       , 1.0078125], dtype=float32)
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    found: np.ndarray = (-(-bits.astype(np.int64) // 65_536) * 65_536).astype(np.uint32).view(np.float32)
    return found


def narrow(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes to the same, but for a bias's last bits.

    Args:
        model: Quantized graph in float32. Scales that are not numbers of bfloat16 stay as they are.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[1] x) => (float[1] y) <float s = {0.5}, int8 z = {0}>
        ...     { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }'''
        >>> [node.op_type for node in narrow(onnx.parser.parse_model(text)).graph.node]
        ['QuantizeLinear', 'DequantizeLinear']
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

    def run(self) -> None:
        layers = self._layers()
        scales = {weight.input[1]: self._scale_bits(weight.input[1]) for _, weight, _ in layers}
        biases = {bias.input[0]: self._numbers(bias.input[0]) for *_, bias in layers if bias is not None}
        renamed = self._joined_scales({name: bits for name, bits in scales.items() if bits is not None})
        renamed |= self._joined_biases(biases)
        for given, weight, bias in layers:
            weight.input[1] = renamed.get(weight.input[1], weight.input[1])
            if bias is not None:  # of int32 the zero point is 0
                scale = self._product(given.input[1], weight.input[1])
                bias.input[:] = [renamed.get(bias.input[0], bias.input[0]), scale]
        self._drop_zero_points()
        self._finish()

    def _layers(self) -> list[tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto | None]]:
        """DequantizeLinear of the input, the weight and, where it is stored as int32, the bias of each layer."""
        written = {name: node for node in self._graph.node for name in node.output}
        found = []
        for node in self._graph.node:
            if node.op_type not in ("Conv", "Gemm") or not all(name in written for name in node.input[:2]):
                continue
            given, weight = written[node.input[0]], written[node.input[1]]
            if not (_dequantizes(given) and _dequantizes(weight) and weight.input[0] in self._stored):
                continue
            if weight.input[1] not in self._stored or len(self._stored[weight.input[1]].dims) != 1:
                continue
            bias = written.get(node.input[2]) if len(node.input) > 2 else None
            stored = self._stored.get(bias.input[0]) if bias is not None and _dequantizes(bias) else None
            whole = stored is not None and stored.data_type == TensorProto.INT32
            found.append((given, weight, bias if whole else None))
        return found

    def _drop_zero_points(self) -> None:
        written = {name: node for node in self._graph.node for name in node.output}
        for node in self._graph.node:
            weight = written.get(node.input[1]) if node.op_type == "Conv" else None
            if weight is None or not _dequantizes(weight) or len(weight.input) < 3:
                continue
            zeros = self._stored.get(weight.input[2])
            if zeros is not None and zeros.data_type == TensorProto.INT8 and not self._numbers(zeros.name).any():
                del weight.input[2:]

    def _numbers(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self._stored[name])

    def _scale_bits(self, name: str) -> np.ndarray | None:
        """A scale's bits as bfloat16, where it is one: a step that went through the quantizer lost its last bit."""
        exact = self._numbers(name)
        bits = (exact.view(np.uint32).astype(np.int64) + 32_768) // 65_536
        near = (bits * 65_536).astype(np.uint32).view(np.float32)
        return bits.astype("<u2") if np.all(np.abs(near - exact) <= _SAME * exact) else None

    def _joined_scales(self, bits: Mapping[str, np.ndarray]) -> dict[str, str]:
        sizes = [len(one) for one in bits.values()]
        if sum(sizes) < _LEAST_NUMBERS:
            return {}
        whole = np.concatenate(list(bits.values()))
        tensor = TensorProto(data_type=TensorProto.BFLOAT16, dims=whole.shape, raw_data=whole.tobytes())
        return self._split(self._cast(self._store(tensor), TensorProto.FLOAT), bits)

    def _joined_biases(self, numbers: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Half precision keeps eleven bits of a number of any size; all are divided by one power of two to fit."""
        if sum(map(len, numbers.values())) < _LEAST_NUMBERS:
            return {}
        whole = np.concatenate(list(numbers.values())).clip(max=_LARGEST_BIAS).astype(np.float64)
        power = max(0, int(np.ceil(np.log2(max(np.abs(whole).max(), 1) / _LARGEST_HALF))))
        value = self._store(numpy_helper.from_array((whole / 2**power).astype(np.float16)))
        if power:
            factor = self._store(numpy_helper.from_array(np.array(2**power, np.float32)))
            value = self._product(self._cast(value, TensorProto.FLOAT), factor)
        return self._split(self._cast(value, TensorProto.INT32), numbers)

    def _split(self, whole: str, parts: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Take a vector apart again; returns the new names by the old ones."""
        sizes = self._store(
            TensorProto(data_type=TensorProto.INT64, dims=[len(parts)], int64_data=map(len, parts.values()))
        )
        names = {old: next(self._names) for old in parts}
        self._made.append(helper.make_node("Split", [whole, sizes], [*names.values()]))
        return names

    def _product(self, one: str, other: str) -> str:
        name = next(self._names)
        self._made.append(helper.make_node("Mul", [one, other], [name]))
        return name

    def _cast(self, value: str, kind: int) -> str:
        name = next(self._names)
        self._made.append(helper.make_node("Cast", [value], [name], to=kind))
        return name

    def _store(self, tensor: TensorProto) -> str:
        tensor.name = next(self._names)
        self._graph.initializer.append(tensor)
        return tensor.name

    def _finish(self) -> None:
        """The new nodes come first; what nobody reads goes."""
        nodes = [*self._made, *self._graph.node]
        read = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in read]
        replace_all(self._graph.node, nodes)
        replace_all(self._graph.initializer, tensors)


def _dequantizes(node: onnx.NodeProto) -> bool:
    return node.op_type == "DequantizeLinear"
