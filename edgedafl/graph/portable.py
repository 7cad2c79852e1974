"""A teacher's graph as a student can start from it: one float image in, logits out, any batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from edgedafl.errors import UnsupportedModelError, reason_of
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.simplify import simplify

__all__ = ["IMAGE", "LOGITS", "free_batch", "portable", "value_shapes"]

IMAGE = "image"
"""Name of the input."""

LOGITS = "logits"
"""Name of the output."""

_IR = 8  # initializers need not be inputs
_OPSET = 18  # the lowest of all targets
_FLOATS = {TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


def portable(model: onnx.ModelProto, image: ImageInput, logits: str) -> onnx.ModelProto:
    """Rewrite a graph to take (N,C,H,W) float32 images and to answer (N,K) logits, at opset 18.

    Every convolution has a bias, every product of rows is a Gemm with one, every constant is an initializer
    of one node alone. Whether the answers are the same is for the caller to compare.

    Args:
        model: The graph, local functions inlined.
        image: Its image input.
        logits: The value that holds the logits.

    Raises:
        UnsupportedModelError: If the graph takes one image without a batch, or cannot be rewritten.
    """
    if not image.batched:
        raise UnsupportedModelError("The network takes one image without a batch axis.")
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    _cut_at(graph, logits)
    _widen(graph)
    _take_image(graph, image)
    _answer_logits(graph, logits)
    del graph.graph.value_info[:]
    graph.ir_version = max(graph.ir_version, _IR)
    _fix_casts(graph)
    graph = simplify(graph)
    _spell_out_gelu(graph)
    graph = _converted(graph)
    _unshare(graph)
    shapes = value_shapes(graph, image.image_shape)
    free_batch(graph, shapes)
    _give_biases(graph)
    _as_gemm(graph, shapes)
    _flatten_biases(graph)
    return graph


def value_shapes(model: onnx.ModelProto, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Shape of every value for one image, found by running it."""
    names = [name for node in model.graph.node for name in node.output if name]
    module = OnnxModule(model, keep=names)
    with torch.no_grad():
        found = module.run({IMAGE: torch.zeros(1, *input_shape)})
    return {IMAGE: (1, *input_shape)} | {name: tuple(value.shape) for name, value in found.items()}


def free_batch(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Reshapes to constant sides take any batch: the first side is what is left over.

    Args:
        model: A float graph, changed in place; initializers are of one node alone.
        shapes: Of its values for one image, see `value_shapes`.
    """
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        before, after = shapes[node.input[0]], shapes[node.output[0]]
        if before[0] == after[0] and 0 not in after:
            sides = np.array([-1, *after[1:]], np.int64)
            constants[node.input[1]].CopyFrom(numpy_helper.from_array(sides, node.input[1]))


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset == _OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _OPSET)
    except Exception as error:  # the converter's errors share no base class
        raise UnsupportedModelError(
            f"The network's opset {opset} cannot be brought to {_OPSET}: {reason_of(error)}"
        ) from error


def _cut_at(model: onnx.ModelProto, logits: str) -> None:
    """Drop everything that the logits do not need."""
    needed, kept = {logits}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                needed.update(name for inner in attribute.g.node for name in inner.input)
    nodes = list(reversed(kept))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    stored = [t for t in model.graph.initializer if t.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)


def _widen(model: onnx.ModelProto) -> None:
    """All floats in float32: what is trained wants its digits."""
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _FLOATS:
                wide = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(wide, attribute.t.name))


def _fix_casts(model: onnx.ModelProto) -> None:
    """A cast to another value's type names the type: then constants behind it can be folded."""
    graph = model.graph
    if not any(node.op_type == "CastLike" for node in graph.node):
        return
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.input]}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "CastLike" and types.get(node.input[1]):
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", types[node.input[1]]))
            del node.input[1:]


def _spell_out_gelu(model: onnx.ModelProto) -> None:
    """GELU is an operator since opset 20 only: x / 2 * (1 + erf(x / sqrt 2)) before."""
    graph = model.graph
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Gelu" or any(a.name == "approximate" and a.s != b"none" for a in node.attribute):
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        for name, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5)):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{y}_{name}"))
        nodes += [
            helper.make_node("Div", [x, f"{y}_root"], [f"{y}_scaled"], f"{y}_div"),
            helper.make_node("Erf", [f"{y}_scaled"], [f"{y}_erf"], f"{y}_erf_node"),
            helper.make_node("Add", [f"{y}_erf", f"{y}_one"], [f"{y}_share"], f"{y}_add"),
            helper.make_node("Mul", [x, f"{y}_share"], [f"{y}_double"], f"{y}_mul"),
            helper.make_node("Mul", [f"{y}_double", f"{y}_half"], [y], f"{y}_halve"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _take_image(model: onnx.ModelProto, image: ImageInput) -> None:
    graph = model.graph
    c, h, w = image.image_shape
    given = helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["batch", c, h, w])
    del graph.input[:]
    graph.input.append(given)
    if image.layout == "NHWC":
        first = helper.make_node("Transpose", [IMAGE], [image.name], "to_nhwc", perm=[0, 2, 3, 1])
    elif image.flat:
        sides = np.array([-1, *image.dimensions(1)[1:]], np.int64)
        graph.initializer.append(numpy_helper.from_array(sides, "image_as_vector"))
        first = helper.make_node("Reshape", [IMAGE, "image_as_vector"], [image.name], "to_vector")
    else:
        first = helper.make_node("Identity", [IMAGE], [image.name], "to_nchw")
    if image.name == IMAGE:
        if first.op_type == "Identity":
            return
        first.output[0] = "image_as_declared"
        for node in graph.node:
            node.input[:] = ["image_as_declared" if name == IMAGE else name for name in node.input]
    graph.node.insert(0, first)


def _answer_logits(model: onnx.ModelProto, logits: str) -> None:
    graph = model.graph
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", None]))
    name = logits
    if logits == LOGITS:
        name = "logits_as_declared"
        for node in graph.node:
            node.input[:] = [name if old == LOGITS else old for old in node.input]
            node.output[:] = [name if old == LOGITS else old for old in node.output]
    graph.node.append(helper.make_node("Flatten", [name], [LOGITS], "to_rows", axis=1))


def _unshare(model: onnx.ModelProto) -> None:
    """Constants become initializers, one per use: each is cut with its own layer."""
    graph = model.graph
    for node in list(graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)
    stored = {t.name: t for t in graph.initializer}
    seen: set[str] = set()
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name not in stored:
                continue
            if name in seen:
                copy = onnx.TensorProto()
                copy.CopyFrom(stored[name])
                copy.name = f"{name}_{len(seen)}"
                graph.initializer.append(copy)
                node.input[place] = copy.name
            seen.add(node.input[place])


def _give_biases(model: onnx.ModelProto) -> None:
    """Convolutions without a bias get zeros."""
    graph = model.graph
    stored = {t.name: tuple(t.dims) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in stored and (len(node.input) < 3 or not node.input[2]):
            name = f"{node.input[1]}_bias"
            zeros = np.zeros(stored[node.input[1]][0], np.float32)
            graph.initializer.append(numpy_helper.from_array(zeros, name))
            node.input[:] = [*node.input[:2], name]


def _as_gemm(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """A product of rows with a matrix, and the vector added behind it, become one Gemm."""
    graph = model.graph
    stored = {t.name: t for t in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in list(graph.node):
        behind = readers.get(node.output[0], [])
        if node.op_type != "MatMul" or node.input[1] not in stored or len(shapes[node.input[0]]) != 2:
            continue
        if len(behind) != 1 or behind[0].op_type != "Add":
            continue
        vector = next((name for name in behind[0].input if name in stored), "")
        count = stored[node.input[1]].dims[-1]
        if not vector or tuple(stored[vector].dims) not in ((count,), (1, count)):
            continue
        del stored[vector].dims[:]
        stored[vector].dims.append(count)
        node.op_type = "Gemm"
        node.input.append(vector)
        node.output[0] = behind[0].output[0]
        graph.node.remove(behind[0])


def _flatten_biases(model: onnx.ModelProto) -> None:
    """A Gemm's bias of one row becomes a vector: quantizers take no other."""
    stored = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[2] not in stored:
            continue
        bias = stored[node.input[2]]
        if len(bias.dims) == 2 and bias.dims[0] == 1:
            del bias.dims[0]
