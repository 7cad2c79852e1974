"""Graphs that take any number of images: what their reshapes say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from edgedafl.graph.edit import attribute, copy_of
from edgedafl.graph.executor import OnnxModule

__all__ = ["free_batch", "value_shapes"]

Shapes = Mapping[str, tuple[int, ...]]


def value_shapes(model: onnx.ModelProto, input_shape: tuple[int, ...], count: int = 1) -> dict[str, tuple[int, ...]]:
    """Shape of every value for so many images, found by running them.

    Args:
        model: A graph that reads images alone.
        input_shape: (C, H, W).
        count: Images.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ... g (float[n,3,4,4] x) => (float[n,3,1,1] y) { y = GlobalAveragePool(x) }'''
        >>> value_shapes(onnx.parser.parse_model(text), (3, 4, 4), 2)
        {'x': (2, 3, 4, 4), 'y': (2, 3, 1, 1)}
    """
    names = [name for node in model.graph.node for name in node.output if name]
    module, image = OnnxModule(model, keep=names), model.graph.input[0].name
    with torch.no_grad():
        found = module.run({image: torch.zeros(count, *input_shape)})
    return {image: (count, *input_shape)} | {name: tuple(value.shape) for name, value in found.items()}


def free_batch(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """A copy whose reshapes take any batch, and state their sides where the graph works them out.

    Args:
        model: A float graph; initializers are of one node alone.
        shapes: Of its values for one image, see `value_shapes`.

    Examples:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,3,2,2] x) => (float[n,12] y)
        ...     <int64[2] sides = {1, 12}> { y = Reshape(x, sides) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> free = free_batch(model, value_shapes(model, (3, 2, 2)))
        >>> [onnx.numpy_helper.to_array(t).tolist() for t in free.graph.initializer]
        [[-1, 12]]
    """
    changed = copy_of(model)
    if not any(node.op_type == "Reshape" for node in changed.graph.node):
        return changed
    channels, height, width = shapes[model.graph.input[0].name][1:]
    of_two = _shapes(changed, (channels, height, width), 2)
    _free_first_side(changed, shapes, of_two)
    of_two = of_two or _shapes(changed, (channels, height, width), 2)
    if of_two is not None:
        of_small = _shapes(changed, (channels, height // 2, width // 2), 1)
        _state_sides(changed, [shapes, of_two, *([of_small] if of_small else [])])
    return changed


def _shapes(model: onnx.ModelProto, input_shape: tuple[int, int, int], count: int) -> Shapes | None:
    """Shapes of other images; None where the graph does not take them."""
    try:
        found = value_shapes(model, input_shape, count)
    except Exception:  # a graph for one image of one size fails in many ways, at any operator
        return None
    whole = all(found[output.name][0] == count for output in model.graph.output)
    return found if whole else None


def _free_first_side(model: onnx.ModelProto, shapes: Shapes, of_two: Shapes | None) -> None:
    """Let the first side of a constant shape be what is left over, where it counts images."""
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        before, after = shapes[node.input[0]], shapes[node.output[0]]
        counts = of_two is None or of_two[node.output[0]][:1] == (2 * after[0],)
        if before[0] == after[0] and counts and 0 not in after:
            sides = np.array([-1, *after[1:]], np.int64)
            constants[node.input[1]].CopyFrom(numpy_helper.from_array(sides, node.input[1]))


def _state_sides(model: onnx.ModelProto, runs: Sequence[Shapes]) -> None:
    """Constant shapes for those that are worked out while the graph runs: what is cut is stated then."""
    graph = model.graph
    stored = {t.name for t in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] in stored or attribute(node, "allowzero", 0):
            continue
        sides = _sides([(run[node.input[0]], run[node.output[0]]) for run in runs])
        if sides is not None:
            name = f"{node.output[0]}_sides"
            graph.initializer.append(numpy_helper.from_array(np.array(sides, np.int64), name))
            node.input[1] = name


def _sides(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[int] | None:
    """What one reshape states for all of several inputs and outputs: 0 copies a side, -1 is what is left over."""
    found = []
    for place, side in enumerate(pairs[0][1]):
        if all(place < len(before) and before[place] == after[place] for before, after in pairs):
            found.append(0)
        else:
            found.append(side if all(after[place] == side for _, after in pairs) else -1)
    return found if found.count(-1) <= 1 else None
