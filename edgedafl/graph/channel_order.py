"""Networks that take blue, green, red, as Caffe's do, behind images of red, green, blue."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedafl.graph.edit import copy_of

__all__ = ["fold_channel_order", "turn_channels"]


def turn_channels(model: onnx.ModelProto, image: str, turned: str, order: str) -> onnx.ModelProto:
    """A copy whose first node reads an RGB image and writes it with blue first.

    Args:
        model: A graph.
        image: The value of the RGB image (N,3,H,W).
        turned: Name of what the node writes.
        order: Name of the stored order.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[n,3,8,8] rgb) => (float[n,3,8,8] y) { y = Relu(bgr) }'''
        >>> turned = turn_channels(onnx.parser.parse_model(text), "rgb", "bgr", "order")
        >>> [node.op_type for node in turned.graph.node]
        ['Gather', 'Relu']
    """
    changed = copy_of(model)
    changed.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), order))
    changed.graph.node.insert(0, helper.make_node("Gather", [image, order], [turned], "to_blue_first", axis=1))
    return changed


def fold_channel_order(model: onnx.ModelProto, image: str) -> onnx.ModelProto:
    """A copy whose convolutions read the image as it is, their weights turned, where nothing else reads it turned.

    Args:
        model: A graph.
        image: The value of the image (N,3,H,W).

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,3,8,8] rgb) => (float[n,1,8,8] y)
        ...     <float[1,3,1,1] w = {1, 2, 3}> { y = Conv(bgr, w) }'''
        >>> turned = turn_channels(onnx.parser.parse_model(text), "rgb", "bgr", "order")
        >>> folded = fold_channel_order(turned, "rgb")
        >>> [onnx.numpy_helper.to_array(t).ravel().tolist() for t in folded.graph.initializer if t.name == "w"]
        [[3.0, 2.0, 1.0]]
    """
    changed = copy_of(model)
    graph = changed.graph
    stored = {t.name: t for t in graph.initializer}
    for node in list(graph.node):
        if node.op_type != "Gather" or node.input[0] != image or node.input[1] not in stored:
            continue
        order = numpy_helper.to_array(stored[node.input[1]])
        readers = [other for other in graph.node if node.output[0] in other.input]
        if not all(_takes(reader, stored, order.size) for reader in readers):
            continue
        for name in {reader.input[1] for reader in readers}:
            weights = numpy_helper.to_array(stored[name])[:, np.argsort(order)]
            stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights), name))
        for reader in readers:
            reader.input[0] = image
        graph.node.remove(node)
    return changed


def _takes(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto], channels: int) -> bool:
    """Whether a node is a convolution over all channels, with stored weights."""
    return node.op_type == "Conv" and node.input[1] in stored and stored[node.input[1]].dims[1] == channels
