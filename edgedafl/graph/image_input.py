"""Finding the image input of a classifier: name, layout, size, fixed batch."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.graph.facts import ImageInput, graph_inputs
from edgedafl.tasks import Layout

__all__ = ["find_image_input"]

_IMAGE_TYPES = {"FLOAT", "FLOAT16", "DOUBLE", "UINT8", "BFLOAT16"}
_COLOURS = (1, 3, 4)
_POINTWISE = {"Cast", "Identity", "Sub", "Add", "Mul", "Div", "QuantizeLinear", "DequantizeLinear"}


def find_image_input(
    model: onnx.ModelProto,
    *,
    name: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
    layout: Layout | None = None,
) -> ImageInput:
    """Find the image input.

    Args:
        model: The model.
        name: Which input to take, needed where several are declared.
        image_shape: (C, H, W), needed where the graph leaves them free.
        layout: `NCHW` or `NHWC`, where the guess would be wrong.

    Raises:
        UnsupportedModelError: If there is no image input, or more than one input must be fed.
        UsageError: If a size is not known, or `name` is not an input.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[n,32,48,3] x) => (float[n,32,48,3] y) { y = Relu(x) }'''
        >>> found = find_image_input(onnx.parser.parse_model(text))
        >>> found.layout, found.image_shape, found.batch
        ('NHWC', (3, 32, 48), None)
    """
    inputs = graph_inputs(model)
    names = [value.name for value in inputs]
    if name is not None and name not in names:
        raise UsageError(f"The model has no input {name!r}; it has {', '.join(names)}.", "Correct --input-name.")
    if len(inputs) != 1:
        raise UnsupportedModelError(
            f"The model's scores need {len(inputs)} inputs ({', '.join(names) or 'none'}); "
            "a classifier of images takes one.",
            "Export the model with one image input, or fold the other inputs into constants; where another output "
            "needs the image alone, name it: --output-name.",
        )
    value = inputs[0]
    kind = value.type.tensor_type
    dtype = TensorProto.DataType.Name(kind.elem_type)
    shape = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
    if dtype not in _IMAGE_TYPES or not kind.HasField("shape"):
        raise UnsupportedModelError(
            f"The input {value.name!r} has type {dtype} and shape {_show(shape)}; expected a float or uint8 image.",
            "EdgeDAFL compresses image classifiers only.",
        )
    if len(shape) not in (3, 4) or _is_vector(shape):
        return _flattened(value.name, dtype, shape, image_shape)
    return _spatial(value.name, dtype, shape, image_shape, layout or _layout_in_graph(model, value.name))


def _spatial(
    name: str,
    dtype: str,
    shape: tuple[int | None, ...],
    image_shape: tuple[int, int, int] | None,
    layout: Layout | None,
) -> ImageInput:
    batched = len(shape) == 4
    sides = shape[-3:]
    layout = layout or _guess_layout(sides)
    c, h, w = sides if layout == "NCHW" else (sides[2], sides[0], sides[1])
    given = image_shape or (c, h, w)
    for declared, wanted in zip((c, h, w), given, strict=True):
        if declared is not None and wanted is not None and declared != wanted:
            raise UsageError(
                f"The input {name!r} is declared {_show(shape)}, which does not fit --input-shape {_show(given)}.",
                "Give C,H,W as the model declares them.",
            )
    if any(side is None for side in given):
        raise UsageError(
            f"The input {name!r} is declared {_show(shape)}: its image size is free.",
            "Say which size to use, e.g. --input-shape 3,224,224.",
        )
    batch = shape[0] if batched else None
    c, h, w = (int(side) for side in given if side is not None)
    return ImageInput(name, shape, dtype, layout, (c, h, w), batch, batched)


def _flattened(
    name: str,
    dtype: str,
    shape: tuple[int | None, ...],
    image_shape: tuple[int, int, int] | None,
) -> ImageInput:
    """A vector input such as (N, 784) or (1, 784, 1): usable once the image shape is known."""
    length = max((side or 0 for side in shape[1:]), default=0) if len(shape) in (2, 3, 4) else 0
    if not length:
        raise UnsupportedModelError(
            f"The input {name!r} has shape {_show(shape)}; expected one image (C,H,W) or a batch of images.",
            "EdgeDAFL compresses image classifiers only.",
        )
    if image_shape is None:
        side = math.isqrt(length)
        if side * side != length:
            raise UsageError(
                f"The input {name!r} is a vector of {length} values.",
                "Say which image it is, e.g. --input-shape 1,28,28.",
            )
        image_shape = (1, side, side)
    if math.prod(image_shape) != length:
        raise UsageError(
            f"--input-shape {_show(image_shape)} has {math.prod(image_shape)} values; "
            f"the input {name!r} takes {length}.",
            "Give C,H,W whose product is the length of the input.",
        )
    return ImageInput(name, shape, dtype, "NCHW", image_shape, shape[0], flat=True)


def _is_vector(shape: tuple[int | None, ...]) -> bool:
    """(N, 784, 1) and similar shapes: behind the batch only one side is longer than 1."""
    return shape[0] in (None, 1) and sorted(side or 0 for side in shape[1:])[:-1] == [1] * (len(shape) - 2)


def _layout_in_graph(model: onnx.ModelProto, name: str) -> Layout | None:
    """Channels stand last where they are brought to the front before the first layer; None where nothing tells."""
    to_front = [[0, 3, 1, 2], [2, 0, 1]]
    following = {name}
    for node in model.graph.node:  # sorted when it was read
        if not following & set(node.input):
            continue
        if node.op_type == "Transpose":
            order = next(([*a.ints] for a in node.attribute if a.name == "perm"), [])
            return "NHWC" if order in to_front else None
        if node.op_type == "Conv":
            return None
        if node.op_type in _POINTWISE:
            following.update(node.output)
    return None


def _guess_layout(sides: tuple[int | None, ...]) -> Layout:
    """Channels-last only where the last side can be colours and the first cannot."""
    return "NHWC" if sides[2] in _COLOURS and sides[0] not in _COLOURS else "NCHW"


def _show(shape: tuple[int | None, ...]) -> str:
    return "(" + ",".join("?" if side is None else str(side) for side in shape) + ")"
