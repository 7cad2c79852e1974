"""Pixels of 0 to 255 as they come from a camera, for .tflite files: the map into model space is the first layer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgedafl_exporters.litert_metadata import ClassifierMetadata

__all__ = ["PIXEL_MAP", "PixelMap", "add_unsigned_ends", "pixel_map_of", "to_pixels"]

PIXEL_MAP = b"edgedafl_pixel_map"
"""Name of a model's metadata that says what its first layer makes of pixels."""

_SHIFT = 128
_VERSION = 2  # of the operator: from uint8 to int8 and back


class PixelMap(nn.Module):
    """`pixel * scale + offset` per channel, as a depthwise convolution: in integers it is one layer, exact to a step.

    Args:
        about: Of the model.
    """

    def __init__(self, about: ClassifierMetadata) -> None:
        super().__init__()
        channels = about.shape[0]
        self.layer = nn.Conv2d(channels, channels, 1, groups=channels)
        self.layer.weight = nn.Parameter(torch.tensor(about.scale).reshape(-1, 1, 1, 1))
        self.layer.bias = nn.Parameter(torch.tensor(about.offset))

    def forward(self, pixels: Tensor) -> Tensor:
        """Images in model space, of images of 0 to 255 (N,C,H,W)."""
        mapped: Tensor = self.layer(pixels)
        return mapped


def to_pixels(images: np.ndarray, scale: Any, offset: Any) -> np.ndarray:
    """Images in model space (N,C,H,W) as pixels of 0 to 255, float32.

    Examples:
        >>> to_pixels(np.array([-1.0, 0.0, 1.0]).reshape(1, 1, 1, 3), [2 / 255], [-1.0]).reshape(-1)
        array([  0. , 127.5, 255. ], dtype=float32)
    """
    low, step = (np.asarray(value, np.float32).reshape(-1, 1, 1) for value in (offset, scale))
    pixels: np.ndarray = ((images - low) / step).astype(np.float32)
    return pixels


def pixel_map_of(tree: Any) -> tuple[list[float], list[float]] | None:
    """Scale and offset per channel of a model that takes pixels; None of one that takes images in model space.

    Args:
        tree: The model, as LiteRT's schema reads it.
    """
    for entry in tree.metadata or []:
        if entry.name == PIXEL_MAP:
            found = json.loads(bytes(tree.buffers[entry.buffer].data))
            return found["scale"], found["offset"]
    return None


def add_unsigned_ends(tree: Any, schema: Any) -> None:
    """Let an integer model take and give uint8, in place: what Android's own classes read and write.

    Args:
        tree: The model, as LiteRT's schema reads it, with int8 at both ends.
        schema: LiteRT's schema.
    """
    (graph,) = tree.subgraphs
    code = schema.OperatorCodeT(
        builtinCode=schema.BuiltinOperator.QUANTIZE,
        deprecatedBuiltinCode=schema.BuiltinOperator.QUANTIZE,
        version=_VERSION,
    )
    tree.operatorCodes.append(code)
    (given,), (made,) = graph.inputs, graph.outputs
    outer = {place: _unsigned(graph, schema, int(place)) for place in (given, made)}
    first = _operator(schema, len(tree.operatorCodes) - 1, outer[given], given)
    last = _operator(schema, len(tree.operatorCodes) - 1, made, outer[made])
    graph.operators = [first, *graph.operators, last]
    graph.inputs, graph.outputs = (np.array([outer[place]], np.int32) for place in (given, made))
    for signature in tree.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = outer.get(entry.tensorIndex, entry.tensorIndex)


def _unsigned(graph: Any, schema: Any, place: int) -> int:
    """A tensor like another one, counted from 0."""
    like = graph.tensors[place]
    steps = schema.QuantizationParametersT(
        scale=np.array(like.quantization.scale), zeroPoint=np.array(like.quantization.zeroPoint) + _SHIFT
    )
    name = f"{like.name.decode()}_unsigned".encode()
    tensor = schema.TensorT(type=schema.TensorType.UINT8, buffer=0, name=name, quantization=steps, hasRank=like.hasRank)
    tensor.shape, tensor.shapeSignature = like.shape, like.shapeSignature
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(schema: Any, code: int, given: int, made: int) -> Any:
    return schema.OperatorT(
        opcodeIndex=code,
        inputs=np.array([given], np.int32),
        outputs=np.array([made], np.int32),
        builtinOptionsType=schema.BuiltinOptions.QuantizeOptions,
        builtinOptions=schema.QuantizeOptionsT(),
    )
