"""Finding the classifier head: the logits behind a final softmax, and the penultimate features.

From the score output walk back to the last layer with weights. A softmax met on the way means
that its input holds the logits; the data input of the layer reached is the feature vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgedafl.tasks import Answers

__all__ = ["BatchNormTap", "Head", "batch_norm_taps", "find_head"]

_PASS_THROUGH = {
    "ArgMax", "AveragePool", "Cast", "DequantizeLinear", "Dropout", "Flatten", "GlobalAveragePool",
    "Identity", "QuantizeLinear", "ReduceMean", "Relu", "Reshape", "Squeeze", "TopK", "Transpose",
    "Unsqueeze",
}  # fmt: skip
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
_NORMALIZERS: dict[str, Answers] = {"Softmax": "probabilities", "LogSoftmax": "log-probabilities", "Sigmoid": "sigmoid"}
_LAYERS = {
    "Gemm", "MatMul", "Conv", "FusedConv", "FusedMatMul", "QGemm", "QLinearMatMul", "QLinearConv",
    "MatMulInteger", "ConvInteger",
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """Where a classifier's scores come from.

    Attributes:
        output: The score output of the graph.
        kind: What that output holds: `logits`, `probabilities`, `log-probabilities`, `sigmoid`
            or `labels` (an arg-max).
        logits: The value that holds the logits.
        features: The value that feeds the last layer, or None where none was found.
    """

    output: str
    kind: Answers
    logits: str
    features: str | None


@dataclass(frozen=True)
class BatchNormTap:
    """One BatchNormalization: the value it reads and its running statistics' initializers."""

    node: str
    input: str
    mean: str
    var: str


def find_head(model: onnx.ModelProto, output: str) -> Head:
    """Trace one output back to its classifier layer.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,2] x) => (float[n,2] y)
        ...     <float[2,2] w = {1, 0, 0, 1}> { scores = MatMul(x, w)  y = Softmax(scores) }'''
        >>> head = find_head(onnx.parser.parse_model(text), "y")
        >>> head.logits
        'scores'
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = _constant_names(model.graph)
    kind: Answers = "logits"
    logits = name = output
    node = producers.get(name)
    while node is not None:
        if node.op_type in _LAYERS:
            return Head(output, kind, logits, _data_input(node, constants))
        if node.op_type in _NORMALIZERS and (kind in ("logits", "labels") or node.op_type == "Softmax"):
            # A softmax of a softmax is a habit of people whose loss has one already.
            kind = _NORMALIZERS[node.op_type] if kind == "logits" else kind
            name = logits = node.input[0]
        elif node.op_type in _PASS_THROUGH:
            if node.op_type in ("ArgMax", "TopK") and kind == "logits":
                kind, logits = "labels", node.input[0]
            name = node.input[0]
        elif node.op_type in _ARITHMETIC and sum(i in constants for i in node.input) == 1:
            name = next(i for i in node.input if i not in constants)
        else:
            break
        node = producers.get(name)
    return Head(output, kind, logits, None)


def batch_norm_taps(model: onnx.ModelProto) -> list[BatchNormTap]:
    """The BatchNormalization layers whose statistics exporters left in the graph.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,2,4,4] x) => (float[n,2,4,4] y)
        ...     <float[2] s = {1, 1}, float[2] b = {0, 0}, float[2] m = {3, 4}, float[2] v = {1, 1}>
        ...     { y = BatchNormalization(x, s, b, m, v) }'''
        >>> [(tap.input, tap.mean, tap.var) for tap in batch_norm_taps(onnx.parser.parse_model(text))]
        [('x', 'm', 'v')]
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    return [
        BatchNormTap(node.name or node.output[0], node.input[0], node.input[3], node.input[4])
        for node in model.graph.node
        if node.op_type == "BatchNormalization" and {node.input[3], node.input[4]} <= stored
    ]


def _data_input(node: onnx.NodeProto, constants: set[str]) -> str | None:
    return next((name for name in node.input if name and name not in constants), None)


def _constant_names(graph: onnx.GraphProto) -> set[str]:
    """Initializers and whatever is computed from them alone."""
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "If" and all(not name or name in constants for name in node.input):
            constants.update(node.output)
    return constants
