"""What a model is, read off its graph without running it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from edgedafl.graph.packed import count_packed
from edgedafl.tasks import Layout

__all__ = ["GraphFacts", "ImageInput", "facts_of", "float_outputs", "graph_inputs"]

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class ImageInput:
    """The image input of a classifier.

    Attributes:
        name: Graph input name.
        shape: Declared dimensions; None where symbolic or unknown.
        dtype: ONNX element type name, e.g. `FLOAT`, `UINT8`.
        layout: `NCHW` or `NHWC`.
        image_shape: (C, H, W).
        batch: The fixed batch size, or None where it is free.
        batched: False for graphs whose input is a single image without a batch axis.
        flat: Whether pixels come as one vector, e.g. (N, 784) or (1, 784, 1).
        blue_first: Whether the channels come as blue, green, red.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: Layout
    image_shape: tuple[int, int, int]
    batch: int | None
    batched: bool = True
    flat: bool = False
    blue_first: bool = False

    def dimensions(self, rows: int) -> tuple[int, ...]:
        """The shape of a feed of so many images."""
        c, h, w = self.image_shape
        if self.flat:
            return (rows, *(c * h * w if side is None else side for side in self.shape[1:]))
        body = (h, w, c) if self.layout == "NHWC" else (c, h, w)
        return (rows, *body) if self.batched else body


@dataclass(frozen=True)
class GraphFacts:
    """Counts that describe a model."""

    producer: str
    ir_version: int
    opset: int
    domains: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: int
    operators: dict[str, int]
    parameters: int
    batch_norms: int
    quantized: bool
    training: bool


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that must be fed: IR 3 lists initializers among the inputs, these do not count.

    Examples:
        >>> text = '<ir_version: 3, opset_import: ["": 7]> g (float[1] x, float[1] w) => (float[1] y) {y = Mul(x, w)}'
        >>> model = onnx.parser.parse_model(text)
        >>> weight = model.graph.initializer.add(name="w", data_type=1, dims=[1], float_data=[2.0])
        >>> [value.name for value in graph_inputs(model)]
        ['x']
    """
    given = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in given]


def float_outputs(model: onnx.ModelProto) -> list[str]:
    """Names of the outputs with a float element type.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,4] x) => (float[1,4] scores, int64[1] label)
        ...     { scores = Relu(x)  label = ArgMax<axis = 1, keepdims = 0>(x) }'''
        >>> float_outputs(onnx.parser.parse_model(text))
        ['scores']
    """
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UNDEFINED}
    return [o.name for o in model.graph.output if o.type.tensor_type.elem_type in floats]


def facts_of(model: onnx.ModelProto) -> GraphFacts:
    """Collect the facts of a model.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { a = Relu(x) y = Neg(a) }'
        >>> facts = facts_of(onnx.parser.parse_model(text))
        >>> facts.opset, facts.nodes, facts.operators
        (18, 2, {'Relu': 1, 'Neg': 1})
    """
    graph = model.graph
    operators = Counter(node.op_type for node in graph.node)
    used = {name for node in graph.node for name in node.input}
    # int64 tensors are shapes and indices, not weights.
    weights = [t for t in graph.initializer if t.name in used and t.data_type != TensorProto.INT64]
    parameters = sum(math.prod(t.dims) for t in weights) + count_packed(graph)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return GraphFacts(
        producer=f"{model.producer_name} {model.producer_version}".strip() or "unknown",
        ir_version=model.ir_version,
        opset=opset,
        domains=tuple(sorted({n.domain for n in graph.node} - {"", "ai.onnx"})),
        inputs=tuple(value.name for value in graph_inputs(model)),
        outputs=tuple(value.name for value in graph.output),
        nodes=len(graph.node),
        operators=dict(operators.most_common()),
        parameters=parameters,
        batch_norms=operators["BatchNormalization"],
        quantized=any(op in _QUANTIZED or op.startswith("QLinear") for op in operators),
        training=_is_training(model),
    )


def _is_training(model: onnx.ModelProto) -> bool:
    if model.training_info:
        return True
    domains = {node.domain for node in model.graph.node}
    if "ai.onnx.preview.training" in domains:
        return True
    return any(
        attribute.name == "training_mode" and attribute.i == 1
        for node in model.graph.node
        for attribute in node.attribute
    ) or any("Grad" in node.op_type for node in model.graph.node if node.domain)
