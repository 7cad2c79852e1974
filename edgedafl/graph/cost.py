"""Multiply-accumulates and per-layer sizes of an ONNX graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx

from edgedafl.errors import UnsupportedModelError, reason_of
from edgedafl.graph.edit import attribute
from edgedafl.graph.facts import ImageInput
from edgedafl.module_cost import LayerSize

__all__ = ["LayerCost", "count_macs", "infer_types", "layer_costs"]

_CONVS = {"Conv", "FusedConv", "QLinearConv", "ConvInteger", "ConvTranspose"}
# Shapes, axes and the like are shorter than this; what is longer is a weight.
_LARGEST_CONSTANT = 1024
_PRODUCTS = {"Gemm", "MatMul", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger"}


_BETWEEN = {
    "MaxPool": "pool", "AveragePool": "pool", "GlobalAveragePool": "pool", "GlobalMaxPool": "pool", "Add": "add",
    "Sum": "add", "Concat": "add", "Mul": "add", "QLinearAdd": "add",
}  # fmt: skip


@dataclass(frozen=True)
class LayerCost(LayerSize):
    """One layer of a graph; activations are fused into the layer before them.

    Attributes:
        name: Node name.
    """

    name: str


def count_macs(model: onnx.ModelProto, image: ImageInput) -> int:
    """Multiply-accumulates of one image through the graph.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.image_input import find_image_input
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,3,8,8] x) => (float[n,2,8,8] y)
        ...     <float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}> { y = Conv(x, w) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> count_macs(model, find_image_input(model))
        384
    """
    return sum(layer.macs for layer in layer_costs(model, image))


def layer_costs(model: onnx.ModelProto, image: ImageInput) -> list[LayerCost]:
    """Cost of every layer, from inferred shapes at batch 1.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.image_input import find_image_input
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,3,8,8] x) => (float[n,2,8,8] y)
        ...     <float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}> { a = Conv(x, w)  y = Relu(a) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> [cost.macs for cost in layer_costs(model, find_image_input(model))]
        [384]
    """
    shapes = {name: shape for name, (_, shape) in infer_types(model, image).items()}
    rows = []
    for node in model.graph.node:
        if node.op_type in _CONVS | _PRODUCTS:
            rows.append(_layer(node, shapes, image.batch or 1))
        elif node.op_type in _BETWEEN:
            rows.append(_between(node, shapes))
    return [row for row in rows if row is not None]


def _between(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> LayerCost | None:
    """A pooling or an addition of images; additions of constants and of vectors are fused."""
    given = [shapes[name] for name in node.input if len(shapes.get(name, ())) == 4]
    output = shapes.get(node.output[0], ())
    kind = _BETWEEN[node.op_type]
    if len(output) != 4 or not given or (kind == "add" and len(given) < 2):
        return None
    inputs = sum(math.prod(shape) for shape in given)
    name = node.name or node.output[0]
    return LayerCost(kind, 0, 0, inputs, math.prod(output), (given[0][1], output[1]), name)


def infer_types(model: onnx.ModelProto, image: ImageInput) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element type (of `onnx.TensorProto`) and shape of every value whose shape is known, at batch 1.

    Raises:
        UnsupportedModelError: If the shapes contradict each other.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.image_input import find_image_input
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[n,3,8,8] x) => (float[n,3,1,1] y) { y = GlobalAveragePool(x) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> infer_types(model, find_image_input(model))["y"]
        (1, (1, 3, 1, 1))
    """
    light = _without_weights(model)
    for value in light.graph.input:
        if value.name == image.name and image.batch is None:
            for dim, side in zip(value.type.tensor_type.shape.dim, image.dimensions(1), strict=True):
                dim.dim_value = side
    if image.batch is None:
        del light.graph.value_info[:]
        for output in light.graph.output:
            output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise UnsupportedModelError(
            f"The shapes in the graph contradict each other: {reason_of(error)}.", "Export the model again."
        ) from error
    found = {t.name: (int(t.data_type), tuple(t.dims)) for t in model.graph.initializer}
    for value in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]:
        known = value.type.tensor_type
        if known.shape.dim and all(d.HasField("dim_value") for d in known.shape.dim):
            found.setdefault(value.name, (known.elem_type, tuple(d.dim_value for d in known.shape.dim)))
    return found


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its large weights declared as inputs: shapes are all that inference needs.

    Models over 2 GB could not be passed to it otherwise.
    """
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    light.functions.extend(model.functions)
    graph, source = light.graph, model.graph
    graph.name = source.name
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(source, field))
    declared = {value.name for value in source.input}
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= _LARGEST_CONSTANT:
            graph.initializer.append(tensor)
        elif tensor.name not in declared:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _layer(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], batch: int) -> LayerCost | None:
    place = 3 if node.op_type.startswith("QLinear") or node.op_type == "QGemm" else 1
    data = shapes.get(node.input[0])
    weight = shapes.get(node.input[place])
    output = shapes.get(node.output[0])
    if weight is None or output is None or len(weight) < 2:
        return None
    count = math.prod(weight)
    read, written = math.prod(data) if data else 0, math.prod(output)
    name = node.name or node.output[0]
    if node.op_type in _PRODUCTS:
        inner = data[-1] if data else weight[0]
        rows = max(1, math.prod(output[:-1]) // batch)
        return LayerCost("linear", rows * inner * output[-1], count, read, written, (inner, output[-1]), name)
    pixels = math.prod(output[2:])
    if node.op_type == "ConvTranspose":
        pixels = math.prod(data[2:]) if data else pixels
    channels = (data[1] if data else weight[1], output[1])
    return LayerCost(_conv_kind(node, weight), count * pixels, count, read, written, channels, name)


def _conv_kind(node: onnx.NodeProto, weight: tuple[int, ...]) -> str:
    group, strides = attribute(node, "group", 1), attribute(node, "strides", [1])
    if group > 1 and weight[1] == 1:
        return "depthwise"
    if group > 1:
        return "grouped"
    if math.prod(weight[2:]) == 1:
        return "pointwise"
    return "conv3x3" if tuple(weight[2:]) == (3, 3) and set(strides) == {1} else "conv"
