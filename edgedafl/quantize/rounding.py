"""Rounding of weights, each column's error made up for by those behind it.

After optimal brain quantization as GPTQ does it (Frantar et al. 2022, arXiv 2210.17323, eq. 3), with the
second moments of what each layer of the rounded network itself reads on synthetic images. A MobileNet loses
most of what int8 costs it to the rounding of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgedafl.graph.edit import copy_of
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.pruning import Layer, layer_of
from edgedafl.quantize.biases import correct_bias
from edgedafl.quantize.ranges import Range
from edgedafl.quantize.simulated import round_inputs
from edgedafl.quantize.steps import LARGEST, on_grid, weight_steps

__all__ = ["ROUNDING_IMAGES", "Rounded", "round_weights"]

_ROWS = 16_000
_NUMBERS = 15_000_000
_MOST_COLUMNS = 2_400
"""Layers that read more are rounded one weight at a time, as ever: the loop over columns would take minutes."""
_DAMPING = 0.01
"""Of the mean diagonal of the second moments, as in the paper's code."""
ROUNDING_IMAGES = 64
"""Images that rounding looks at."""


@dataclass(frozen=True)
class Rounded:
    """A float graph whose layers have weights on the grid of their integers, and biases that go with them.

    Attributes:
        model: The graph.
        steps: What one integer stands for, by weight and output channel (O,); of the weights that were rounded.
    """

    model: onnx.ModelProto
    steps: Mapping[str, np.ndarray]


@torch.no_grad()
def round_weights(
    model: onnx.ModelProto,
    images: np.ndarray,
    ranges: Mapping[str, Range],
    operators: Set[str],
    *,
    symmetric: bool = False,
    largest: Mapping[str, int] = MappingProxyType({}),
) -> Rounded:
    """Round every convolution's weights to integers per output channel, and correct every layer's bias.

    The float network and the rounded one run side by side, node by node. What the rounded one reads is rounded where
    integers will be, so that every layer is rounded for inputs as they will be.

    Args:
        model: Float32 graph at batch 1 whose reshapes take any batch.
        images: float32 (N,C,H,W) in model space; what one layer makes of all of them is in memory.
        ranges: Of every activation.
        operators: Types of the nodes whose inputs will be integers.
        symmetric: Whether zero lies in the middle of the integers.
        largest: Integers span -largest to largest, by weight, 127 where it is not said. Below that the weights of
            matrix products are rounded as well.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[1,1,2,2] x) => (float[1,2,2,2] y)
        ...     <float[2,1,1,1] w = {2.5, 127}, float[2] b = {0, 0}> { y = Conv(x, w, b) }'''
        >>> images = np.ones((4, 1, 2, 2), np.float32)
        >>> found = round_weights(onnx.parser.parse_model(text), images, {}, {"Conv"})
        >>> found.steps["w"].round(3)
        array([0.02, 1.  ], dtype=float32)
    """
    whole, mine = OnnxModule(model), OnnxModule(model)
    feeds = {model.graph.input[0].name: torch.from_numpy(images)}
    random = torch.Generator().manual_seed(0)
    steps: dict[str, np.ndarray] = {}
    done: set[str] = set()
    for exact, coarse in zip(whole.walk(feeds), mine.walk(feeds), strict=True):
        if coarse.node.op_type in operators:
            round_inputs(coarse, ranges, done, symmetric=symmetric)
        layer = layer_of(coarse.node, mine)
        given = None if layer is None else coarse.values.get(coarse.node.input[0])
        exact.run()
        if layer is not None and given is not None and layer.weight not in steps:
            own = largest.get(layer.weight, LARGEST)
            if coarse.node.op_type == "Conv" or own < LARGEST:
                steps[layer.weight] = _round(mine, layer, given, exact.values[exact.node.output[0]], own, random)
        coarse.run()
        if layer is not None and layer.bias is not None:
            correct_bias(layer, mine, exact, coarse)
    return Rounded(_with_weights(model, mine, steps.keys()), steps)


def _with_weights(model: onnx.ModelProto, module: OnnxModule, weights: Set[str]) -> onnx.ModelProto:
    """A copy with the weights of a network and with its biases."""
    changed = copy_of(model)
    biases = {node.input[2] for node in changed.graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) > 2}
    for tensor in changed.graph.initializer:
        if tensor.name in weights or (tensor.name in biases and module.holds(tensor.name)):
            value = module.initializer(tensor.name).numpy().reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32, order="C"), tensor.name))
    return changed


def _round(
    module: OnnxModule, layer: Layer, given: Tensor, made: Tensor, largest: int, random: torch.Generator
) -> np.ndarray:
    """Round one layer in place; returns the step of every output channel."""
    whole = layer.read(module)  # (G, outputs, columns + 1)
    weight, bias = whole[..., :-1].clone(), whole[..., -1:]
    step = weight_steps(weight, largest)
    columns = layer.columns
    if columns <= _MOST_COLUMNS:
        rows, _ = layer.rows(given, [made], int(min(_ROWS, _NUMBERS / (layer.groups * columns))), random)
        inputs = rows[..., :-1]
        weight = _compensated(weight, step, (inputs.transpose(1, 2) @ inputs).double(), largest)
    rounded = on_grid(weight, step, largest)
    layer.write(module, torch.cat([rounded, bias], 2))
    found: np.ndarray = step.reshape(-1).numpy()
    return found


def _compensated(weight: Tensor, step: Tensor, gram: Tensor, largest: int) -> Tensor:
    """Weights on their grid, (G, outputs, columns), each column's error moved onto those behind it."""
    columns = weight.shape[2]
    mean = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12).reshape(-1, 1, 1)
    gram = gram / mean + _DAMPING * torch.eye(columns, dtype=gram.dtype)
    # Columns that are read loudest are rounded first: most others are there to make up for them.
    order = gram.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    gram = gram.gather(1, order.unsqueeze(2).expand_as(gram)).gather(2, order.unsqueeze(1).expand_as(gram))
    inverse = torch.linalg.cholesky(torch.linalg.inv(gram), upper=True).float()
    places = order.unsqueeze(1).expand_as(weight)
    rest = weight.gather(2, places)
    done = torch.empty_like(rest)
    for column in range(columns):
        now = rest[..., column : column + 1]
        rounded = on_grid(now, step, largest)
        done[..., column : column + 1] = rounded
        error = (now - rounded) / inverse[:, column : column + 1, column : column + 1]
        rest[..., column + 1 :] -= error * inverse[:, column : column + 1, column + 1 :]
    return torch.empty_like(weight).scatter_(2, places, done)
