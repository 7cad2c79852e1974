"""A teacher's graph as a student can start from it: one float image in, logits out, any batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Set
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedafl.errors import UnsupportedModelError, reason_of
from edgedafl.graph.batch import free_batch, value_shapes
from edgedafl.graph.channel_order import fold_channel_order, turn_channels
from edgedafl.graph.constants import with_constants_stored
from edgedafl.graph.edit import attribute, copy_of, readers_of
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.needed import drop_unneeded, read_by
from edgedafl.graph.simplify import simplify
from edgedafl.graph.spell_out import spell_out
from edgedafl.graph.tame import floats_for

__all__ = ["IMAGE", "LOGITS", "canonicalize"]

IMAGE = "image"
"""Name of the input."""

LOGITS = "logits"
"""Name of the output."""

_IR = 8  # initializers need not be inputs
_OPSET = 18  # the lowest of all targets
_ONE_AXIS = 13  # from here on Softmax is of one axis; before, of all from one on
_ASIDE = "held"
_FLOATS = {TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


def canonicalize(model: onnx.ModelProto, image: ImageInput, logits: str) -> onnx.ModelProto:
    """Rewrite a graph to take (N,C,H,W) float32 images and to answer (N,K) logits, at opset 18.

    Every convolution has a bias, a product of rows and the vector added behind it are one Gemm, every constant is
    an initializer of one node alone. Whether the answers are the same is for the caller to compare.

    Args:
        model: The graph, local functions inlined.
        image: Its image input.
        logits: The value that holds the logits.

    Raises:
        UnsupportedModelError: If the graph takes one image without a batch, or cannot be rewritten.

    Examples:
        >>> import onnx
        >>> from edgedafl.graph.image_input import find_image_input
        >>> text = '''<ir_version: 8, opset_import: ["": 13]> g (float[n,1,8,8] x) => (float[n,1] y)
        ...     <float[1,1] w = {3}> { a = GlobalAveragePool(x)  b = Flatten(a)  y = MatMul(b, w) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> [node.op_type for node in canonicalize(model, find_image_input(model), "y").graph.node]
        ['GlobalAveragePool', 'Flatten', 'MatMul']
    """
    if not image.batched:
        raise UnsupportedModelError("The network takes one image without a batch axis.")
    graph = drop_unneeded(model, {logits})
    _drop_dropout(graph)
    graph = floats_for(graph, _FLOATS)  # what is trained wants its digits
    names = _free_names(graph, {IMAGE, LOGITS})
    graph = _taking_image(graph, replace(image, name=names.get(image.name, image.name)))
    _answer_logits(graph, names.get(logits, logits))
    del graph.graph.value_info[:]
    graph.ir_version = max(graph.ir_version, _IR)
    _fix_casts(graph)
    graph = simplify(graph)
    folded = fold_channel_order(graph, IMAGE)
    graph = spell_out(folded, functools.cache(lambda: value_shapes(folded, image.image_shape)))
    spelled = graph
    graph = _converted(spelled, functools.cache(lambda: value_shapes(spelled, image.image_shape)))
    graph = with_constants_stored(graph)
    _unshare(graph)
    shapes = value_shapes(graph, image.image_shape)
    graph = free_batch(graph, shapes)
    _give_biases(graph)
    _as_gemm(graph, shapes)
    _flatten_biases(graph)
    return graph


def _converted(model: onnx.ModelProto, shapes: Callable[[], Mapping[str, tuple[int, ...]]]) -> onnx.ModelProto:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset == _OPSET:
        return model
    held = _hold_softmax(model, shapes) if opset < _ONE_AXIS else model
    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(held, _OPSET)
    except Exception as error:  # the converter's errors share no base class
        raise UnsupportedModelError(
            f"The network's opset {opset} cannot be brought to {_OPSET}: {reason_of(error)}"
        ) from error
    _release(converted)
    return converted


def _hold_softmax(model: onnx.ModelProto, shapes: Callable[[], Mapping[str, tuple[int, ...]]]) -> onnx.ModelProto:
    """A copy in which Softmax of the last axis is out of the converter's sight, which would flatten around it."""
    held = copy_of(model)
    found = [node for node in held.graph.node if node.op_type in ("Softmax", "LogSoftmax") and node.domain == ""]
    for node in found:
        rank = len(shapes()[node.input[0]])
        if attribute(node, "axis", 1) % rank == rank - 1:
            del node.attribute[:]
            node.domain = _ASIDE
    if any(node.domain == _ASIDE for node in found):
        held.opset_import.append(helper.make_opsetid(_ASIDE, 1))
    return held


def _release(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.domain == _ASIDE:
            node.domain = ""
    others = [entry for entry in model.opset_import if entry.domain != _ASIDE]
    del model.opset_import[:]
    model.opset_import.extend(others)


def _drop_dropout(model: onnx.ModelProto) -> None:
    """Dropout does nothing to an image that is classified, and some of its versions cannot be converted."""
    used = {name for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.op_type == "Dropout" and not used & set(node.output[1:]):
            node.op_type = "Identity"
            del node.input[1:], node.output[1:], node.attribute[:]


def _names(graph: onnx.GraphProto) -> set[str]:
    """Of all values, those of graphs in attributes among them."""
    found = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        found.update(node.output)
        found |= read_by(node)
        for entry in node.attribute:
            for inner in (entry.g, *entry.graphs):
                found |= _names(inner)
    return found


def _fresh(name: str, taken: Set[str]) -> str:
    """The name, or one like it that is not taken."""
    free = name
    while free in taken:
        free += "_"
    return free


def _free_names(model: onnx.ModelProto, wanted: Set[str]) -> dict[str, str]:
    """Call values otherwise that have names of ours; returns the new names by the old ones."""
    taken = _names(model.graph)
    renamed = {name: _fresh(f"{name}_as_declared", taken) for name in wanted & taken}
    if renamed:
        _rename(model.graph, renamed)
    return renamed


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for entry in node.attribute:
            for inner in (entry.g, *entry.graphs):
                _rename(inner, renamed)


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


def _taking_image(model: onnx.ModelProto, image: ImageInput) -> onnx.ModelProto:
    graph = model.graph
    c, h, w = image.image_shape
    given = helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["batch", c, h, w])
    del graph.input[:]
    graph.input.append(given)
    taken = _names(graph)
    given_as = _fresh("image_blue_first", taken) if image.blue_first else IMAGE
    if image.layout == "NHWC":
        first = helper.make_node("Transpose", [given_as], [image.name], "to_nhwc", perm=[0, 2, 3, 1])
    elif image.flat:
        sides = np.array([-1, *image.dimensions(1)[1:]], np.int64)
        shape = _fresh("image_as_vector", taken)
        graph.initializer.append(numpy_helper.from_array(sides, shape))
        first = helper.make_node("Reshape", [given_as, shape], [image.name], "to_vector")
    else:
        first = helper.make_node("Identity", [given_as], [image.name], "to_nchw")
    graph.node.insert(0, first)
    return turn_channels(model, IMAGE, given_as, _fresh("blue_first", taken)) if image.blue_first else model


def _answer_logits(model: onnx.ModelProto, logits: str) -> None:
    graph = model.graph
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", None]))
    graph.node.append(helper.make_node("Flatten", [logits], [LOGITS], "to_rows", axis=1))


def _unshare(model: onnx.ModelProto) -> None:
    """One initializer per use: each is cut with its own layer."""
    graph = model.graph
    stored, taken = {t.name: t for t in graph.initializer}, _names(graph)
    seen: set[str] = set()
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name not in stored:
                continue
            if name in seen:
                copy = onnx.TensorProto()
                copy.CopyFrom(stored[name])
                copy.name = _fresh(f"{name}_{len(seen)}", taken)
                taken.add(copy.name)
                graph.initializer.append(copy)
                node.input[place] = copy.name
            seen.add(node.input[place])


def _give_biases(model: onnx.ModelProto) -> None:
    """Convolutions without a bias get zeros."""
    graph = model.graph
    stored, taken = {t.name: tuple(t.dims) for t in graph.initializer}, _names(graph)
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in stored and (len(node.input) < 3 or not node.input[2]):
            name = _fresh(f"{node.input[1]}_bias", taken)
            zeros = np.zeros(stored[node.input[1]][0], np.float32)
            graph.initializer.append(numpy_helper.from_array(zeros, name))
            node.input[:] = [*node.input[:2], name]


def _as_gemm(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """A product of rows with a matrix, and the vector added behind it, become one Gemm."""
    graph = model.graph
    stored = {t.name: t for t in graph.initializer}
    readers = readers_of(model)
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
